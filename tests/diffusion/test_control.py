"""Control by pictures, and adapters: both start as nothing."""

import pytest
import torch
import torch.nn.functional as F

from diffusion import DiffusionDecoder, DiffusionDecoderModule, UNet3D, inflate
from diffusion.adapters import add_adapters, merged
from diffusion.control import edges, low_resolution

pytestmark = pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")


def build(**options):
    decoder = DiffusionDecoder(UNet3D([32, 32], [1, 1]), 200, [4, 8], **options)
    return decoder.eval()


def stirred(module):
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))
    return module


@pytest.fixture
def tokens():
    return torch.randint(200, (2, 6, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def control():
    return torch.rand(2, 1, 21, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_control_starts_as_nothing_and_then_counts(tiny_tokenizer, tokens, control):
    plain = stirred(build())
    steered = build(control="edges")
    inflate(plain, steered)
    for decoder in (plain, steered):
        decoder.attach(tiny_tokenizer)
    before = plain.decode(tokens, steps=2)
    assert torch.equal(steered.decode(tokens, steps=2, control=control), before)
    stirred(steered.control)
    after = steered.decode(tokens, steps=2, control=control)
    assert not torch.allclose(after, before, atol=1e-3)
    # The end of the control steers the end of the clip only.
    other = torch.cat([control[:, :, :9], 1 - control[:, :, 9:]], dim=2)
    changed = steered.decode(tokens, steps=2, control=other)
    assert torch.equal(changed[:, :, :9], after[:, :, :9])
    assert not torch.allclose(changed[:, :, 9:], after[:, :, 9:], atol=1e-3)


def test_edges_are_where_brightness_jumps():
    clip = torch.full((1, 3, 2, 16, 16), -0.8)
    clip[:, :, 1, 4:12, 4:12] = 0.8
    found = edges(clip)
    assert not found[:, :, 0].any()
    assert not found[0, 0, 1, 6:10, 6:10].any()
    assert bool(found[0, 0, 1, 4, 5:11].all())
    assert bool(found[0, 0, 1, 5:11, 11].all())
    assert not found[0, 0, 1, :2].any()


def test_low_resolution_is_the_mean_of_blocks(control):
    clip = control.expand(-1, 3, -1, -1, -1)[:, :, 0] * torch.tensor([1, 0.5, -1])[:, None, None]
    means = F.avg_pool2d(clip, 8).repeat_interleave(8, -1).repeat_interleave(8, -2)
    torch.testing.assert_close(low_resolution(clip[:, :, None])[:, :, 0], means)
    assert low_resolution(clip[:, :, None, :12, :20]).shape == (2, 3, 1, 12, 20)


def test_only_the_control_is_trained_on_a_frozen_decoder(tiny_tokenizer):
    decoder = build(control="edges")
    DiffusionDecoderModule(decoder, "", 10, start_from="model", trained="control")
    trained = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert trained == {f"control.{name}" for name, _ in decoder.control.named_parameters()}


def test_adapters_start_as_nothing_and_merge_into_the_weights(tiny_tokenizer, tokens):
    source, decoder = stirred(build()), build()
    add_adapters(decoder.network, rank=2)
    inflate(source, decoder)
    for one in (source, decoder):
        one.attach(tiny_tokenizer)
    before = source.decode(tokens, steps=2)
    torch.testing.assert_close(decoder.decode(tokens, steps=2), before, atol=1e-5, rtol=1e-5)
    generator = torch.Generator().manual_seed(0)
    adapters = [p for p in decoder.network.parameters() if p.requires_grad]
    for p in adapters:
        p.data.add_(0.1 * torch.randn(p.shape, generator=generator))
    assert sum(p.numel() for p in adapters) < 0.5 * sum(p.numel() for p in source.parameters())
    after = decoder.decode(tokens, steps=2)
    assert not torch.allclose(after, before, atol=1e-3)
    whole = merged(decoder)
    assert whole.state_dict().keys() == source.state_dict().keys()
    whole.attach(tiny_tokenizer)
    torch.testing.assert_close(whole.decode(tokens, steps=2), after, atol=1e-4, rtol=1e-4)


def test_training_with_adapters_leaves_the_weights_and_exports_none(tiny_tokenizer):
    decoder = build()
    module = DiffusionDecoderModule(decoder, "", 10, start_from="model", adapter_rank=2)
    trained = {name for name, p in decoder.named_parameters() if p.requires_grad}
    assert trained
    assert all(".lora_" in name for name in trained)
    assert module.exported().state_dict().keys() == build().state_dict().keys()


@pytest.mark.parametrize("trained", ["temporal", "control"])
def test_adapters_beside_a_part_that_is_trained_alone_are_refused(trained):
    told = {"start_from": "model", "trained": trained, "adapter_rank": 2}
    with pytest.raises(ValueError, match="set adapter_rank to 0"):
        DiffusionDecoderModule(build(control="edges"), "", 10, **told)


def test_what_cannot_be_steered_is_refused(tiny_tokenizer, tokens, control):
    plain, steered = build(), build(control="edges")
    for decoder in (plain, steered):
        decoder.attach(tiny_tokenizer)
    with pytest.raises(ValueError, match="no other takes one"):
        plain.decode(tokens, control=control)
    with pytest.raises(ValueError, match="needs a control"):
        steered.decode(tokens)
    for wrong in (control[:, :, :9], control[..., :16], control.expand(-1, 3, -1, -1, -1)):
        with pytest.raises(ValueError, match="of the clip's size"):
            steered.decode(tokens, steps=1, control=wrong)
    with pytest.raises(ValueError, match="set control"):
        DiffusionDecoderModule(plain, "", 10, start_from="model", trained="control")
