import importlib.util
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import layers.attention
from layers.attention import attention


@pytest.mark.parametrize("masking", ["none", "causal", "mask"])
@pytest.mark.parametrize("length", [1, 20, 301, 460, 1024])
def test_the_written_out_path_and_its_gradients_are_pytorchs(masking, length):
    torch.manual_seed(0)
    q, k, v, seen = (torch.randn(2, 3, length, 16, requires_grad=True) for _ in range(4))
    mask = torch.rand(length, length) < 0.5
    mask[:, 0] = True
    given = mask if masking == "mask" else None
    ours = attention(q, k, v, causal=masking == "causal", mask=given)
    theirs = F.scaled_dot_product_attention(q, k, v, given, is_causal=masking == "causal")
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(
        torch.autograd.grad(ours, (q, k, v), seen),
        torch.autograd.grad(theirs, (q, k, v), seen),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    with torch.no_grad():
        torch.testing.assert_close(attention(q, k, v, causal=masking == "causal", mask=given), ours)


def inputs(kv_heads=4):
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, n, 40, 16, generator=generator) for n in (4, kv_heads, kv_heads))
    return q, k, v


def by_hand(q, k, v, mask):
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.einsum("bhnd,bhmd->bhnm", q, k) / 4
    return scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("trained", [False, True])
def test_every_way_to_say_causal_gives_the_same(kv_heads, trained):
    q, k, v = inputs(kv_heads)
    q.requires_grad_(trained)
    lower = torch.ones(40, 40, dtype=torch.bool).tril()
    blocks = create_block_mask(lambda b, h, i, j: i >= j, None, None, 40, 40, device="cpu")
    expected = by_hand(q, k, v, lower)
    torch.testing.assert_close(attention(q, k, v, causal=True), expected)
    torch.testing.assert_close(attention(q, k, v, mask=lower), expected)
    torch.testing.assert_close(attention(q, k, v, mask=blocks), expected)
    one = attention(q[:, :, 5:6], k[:, :, :6], v[:, :, :6])
    torch.testing.assert_close(one, expected[:, :, 5:6])


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_a_block_mask_means_what_flex_attention_means():
    q, k, v = inputs(2)
    window = create_block_mask(
        lambda b, h, i, j: i // 8 == j // 8, None, None, 40, 40, device="cpu"
    )
    theirs = flex_attention(q, k, v, block_mask=window, enable_gqa=True)
    torch.testing.assert_close(attention(q, k, v, mask=window), theirs)


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own imports
def test_the_kernel_of_a_block_mask_sees_what_its_table_says(monkeypatch):
    """Compiled, as on a GPU: frames of 64 tokens, each of which sees its own frame and the text."""
    monkeypatch.setattr(layers.attention, "_takes_blocks", lambda mask: True)
    frame = torch.arange(640) // 64
    table = (frame[:, None] == frame) & torch.ones(640, 640, dtype=torch.bool).tril()
    table[:, :3] = torch.ones(640, 3, dtype=torch.bool).tril()
    q, k, v = (torch.randn(2, heads, 640, 16) for heads in (4, 2, 2))
    blocks = layers.attention.sparse(table, 16)
    assert blocks.sparsity() > 50
    seen = layers.attention._compiled_flex()(q, k, v, block_mask=blocks, enable_gqa=True)
    torch.testing.assert_close(seen, by_hand(q, k, v, table))


@pytest.mark.parametrize(
    ("length", "head_dim", "on_gpu", "taken"),
    [
        (1024, 16, True, True),
        (1023, 16, True, False),
        (1024, 8, True, False),
        (1024, 16, False, False),
    ],
)
def test_long_tables_become_block_masks_on_a_gpu(length, head_dim, on_gpu, taken, monkeypatch):
    made, blocks = [], create_block_mask(lambda b, h, i, j: i >= j, None, None, 8, 8, device="cpu")

    def create(*args, device):
        made.append(device)
        return blocks

    monkeypatch.setattr(layers.attention, "create_block_mask", create)
    table = torch.ones(length, length, dtype=torch.bool)
    kept = layers.attention.sparse(table.as_subclass(OnGPU) if on_gpu else table, head_dim)
    assert made == [torch.device("cuda")] * taken
    assert (kept is blocks) == taken


@pytest.mark.parametrize("causal", [False, True])
def test_flash_attn_is_called_as_its_manual_says(monkeypatch, causal):
    """It takes B N heads head_dim, half precision and shared keys; here in PyTorch's words."""

    def flash_attn_func(q, k, v, causal):
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        return y.transpose(1, 2)

    package = types.SimpleNamespace(flash_attn_func=flash_attn_func)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    q, k, v = inputs(2)
    torch.testing.assert_close(
        layers.attention._flash(q, k, v, causal), attention(q, k, v, causal=causal)
    )


class OnGPU(torch.Tensor):
    """A tensor that says it is on a GPU, and is computed with on the CPU."""

    @property
    def device(self):
        return torch.device("cuda")


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("installed", [False, True])
def test_flash_attn_takes_half_precision_without_a_mask_on_a_gpu(
    monkeypatch, causal, dtype, masked, on_gpu, installed
):
    taken = []

    def flash(q, k, v, causal):
        taken.append((q.dtype, causal))
        return q

    monkeypatch.setattr(layers.attention, "_flash", flash)
    monkeypatch.setattr(layers.attention, "_flash_attn", lambda: installed)
    q, k, v = (x.to(dtype).as_subclass(OnGPU) if on_gpu else x.to(dtype) for x in inputs())
    mask = torch.ones(40, 40, dtype=torch.bool) if masked else None
    attention(q, k, v, causal=causal and not masked, mask=mask)
    asked = installed and on_gpu and not masked and dtype != torch.float32
    assert taken == [(dtype, causal)] * asked


@pytest.mark.parametrize("found", [None, "a package"])
def test_flash_attn_is_there_where_its_package_is(monkeypatch, found):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    assert layers.attention._flash_attn.__wrapped__() == (found is not None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_every_kernel_gives_the_same():
    q, k, v = (x.cuda().bfloat16() for x in inputs(2))
    lower = torch.ones(40, 40, dtype=torch.bool).tril()
    blocks = create_block_mask(lambda b, h, i, j: i >= j, None, None, 40, 40, device="cuda")
    expected = by_hand(*inputs(2), lower)
    for arguments in ({"causal": True}, {"mask": lower.cuda()}, {"mask": blocks}):
        ours = attention(q, k, v, **arguments).float().cpu()
        torch.testing.assert_close(ours, expected, atol=2e-2, rtol=2e-2)
