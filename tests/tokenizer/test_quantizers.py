import json
import math

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch.distributions import Normal, kl_divergence
from torch.utils._python_dispatch import TorchDispatchMode
from vector_quantize_pytorch import VectorQuantize, lookup_free_quantization

from layers.configurable import build
from tokenizer import FSQ, KL, LFQ, VQ

LEVELS = [8, 5, 6, 3]
QUANTIZERS = {
    "FSQ": FSQ(LEVELS),
    "FSQ with entropy": FSQ(LEVELS, entropy_weight=0.1),
    "LFQ": LFQ(7),
    "VQ": VQ(100, dim=4),
    "VQ on the sphere": VQ(100, dim=4, l2=True),
}


def latents_of(quantizer, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, quantizer.input_dim, 3, 8, 8, generator=generator)


def closed_form(latents: torch.Tensor) -> torch.Tensor:
    """Level index of each dimension by the formula of the paper, in float64, by a plain loop."""
    digits = []
    for level, z in zip(LEVELS, latents.double().unbind(1), strict=True):
        half = (level - 1) * (1 + 1e-3) / 2
        offset = 0.5 if level % 2 == 0 else 0.0
        bounded = torch.tanh(z + math.atanh(offset / half)) * half - offset
        digits.append(bounded.round() + level // 2)
    tokens, radix = torch.zeros_like(digits[0]), 1
    for level, digit in zip(LEVELS, digits, strict=True):
        tokens, radix = tokens + digit * radix, radix * level
    return tokens.long()


@pytest.fixture(params=QUANTIZERS)
def quantizer(request):
    """Each quantizer after one batch of training."""
    fresh = build(QUANTIZERS[request.param].config).train()
    fresh(latents_of(fresh))
    return fresh


def test_a_token_stands_for_the_latents_behind_the_quantizer(quantizer):
    quantizer.eval()
    result = quantizer(latents_of(quantizer, seed=1))
    torch.testing.assert_close(quantizer.lookup(result.tokens), result.latents)
    assert 0 <= int(result.tokens.min()) <= int(result.tokens.max()) < quantizer.codebook_size
    assert result.tokens.unique().numel() > quantizer.codebook_size / 4


def test_every_token_has_latents_of_its_own(quantizer):
    tokens = torch.arange(quantizer.codebook_size).reshape(1, 1, 1, -1)
    codes = rearrange(quantizer.lookup(tokens), "b d t h w -> (b t h w) d")
    assert len(codes.unique(dim=0)) == quantizer.codebook_size


def test_autocast_changes_no_token(quantizer):
    latents = latents_of(quantizer)
    quantizer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer(latents).tokens, build_twin(quantizer).eval()(latents).tokens)
        assert quantizer(latents).latents.dtype == torch.float32


def test_latents_in_bfloat16_are_quantized_in_float32(quantizer):
    """Half precision in the quantizer itself flips tokens and costs the losses their digits."""
    latents = latents_of(quantizer).bfloat16()
    half, whole = (
        build_twin(quantizer).train()(x.requires_grad_()) for x in (latents, latents.float())
    )
    assert torch.equal(half.tokens, whole.tokens)
    assert {half.latents.dtype, half.loss.dtype} == {torch.float32}
    assert torch.equal(half.latents, whole.latents)
    assert torch.equal(half.loss, whole.loss)
    assert half.stats == whole.stats


def test_the_gradient_passes_straight_through(quantizer):
    latents = latents_of(quantizer).requires_grad_()
    direction = torch.randn_like(latents)
    quantizer.eval()
    (quantizer(latents).latents * direction).sum().backward()
    assert latents.grad is not None
    if isinstance(quantizer, LFQ) or (isinstance(quantizer, VQ) and not quantizer.l2):
        torch.testing.assert_close(latents.grad, direction)
    else:  # through a bounding curve or the projection onto the sphere
        assert float((latents.grad * direction).mean()) > 0.01


def test_eval_mode_changes_no_state_and_draws_nothing(quantizer):
    quantizer.eval()
    before = {name: value.clone() for name, value in quantizer.state_dict().items()}
    state = torch.get_rng_state()
    result = quantizer(latents_of(quantizer))
    assert float(result.loss) == 0
    assert all(torch.equal(before[n], v) for n, v in quantizer.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def build_twin(quantizer):
    """Return a copy that went through JSON and a state dict, as a resumed run does."""
    twin = build(json.loads(json.dumps(quantizer.config)))
    twin.load_state_dict(quantizer.state_dict())
    return twin


def test_a_resumed_quantizer_goes_on_as_if_never_stopped(quantizer):
    """VideoGPT kept "initialised" outside the state: resuming drew the codebook anew."""
    twin = build_twin(quantizer).train()
    for seed in (5, 6):
        ours, theirs = (q(latents_of(q, seed=seed)) for q in (quantizer, twin))
        assert torch.equal(ours.tokens, theirs.tokens)
        assert torch.equal(ours.loss, theirs.loss)


def test_fsq_follows_its_closed_form():
    latents = 2 * latents_of(FSQ(LEVELS))
    assert torch.equal(FSQ(LEVELS)(latents).tokens, closed_form(latents))


def test_the_entropy_of_fsq_is_over_its_own_levels():
    """Against a softmax over all codes, written out; what is rounded is what the library rounds."""
    quantizer, temperature = FSQ(LEVELS, entropy_weight=0.1, temperature=0.3).train(), 0.3
    latents = latents_of(quantizer)
    half = torch.tensor([n // 2 for n in LEVELS]).view(-1, 1, 1, 1)
    bounded = quantizer.bound(latents)
    torch.testing.assert_close(bounded.round() / half, quantizer(latents).latents)

    tokens = torch.arange(quantizer.codebook_size).view(1, 1, 1, -1)
    codes = (quantizer.lookup(tokens) * half)[0].flatten(1).T  # the library divides codes by this
    rows = bounded.movedim(1, -1).flatten(0, -2)
    distances = (rows[:, None] - codes).square().sum(-1)
    chances = (-distances / temperature).softmax(-1)
    entropy = lambda p: -torch.xlogy(p, p).sum(-1)
    stats = quantizer(latents).stats
    torch.testing.assert_close(stats["sample_entropy"], entropy(chances).mean())
    torch.testing.assert_close(stats["batch_entropy"], entropy(chances.mean(0)))


def test_lfq_tokens_are_the_signs_in_binary():
    latents = torch.tensor([0.3, -0.2, 1.5, -4.0]).view(1, 4, 1, 1, 1)
    assert LFQ(4).eval()(latents).tokens.item() == 0b0101


@pytest.mark.parametrize("temperature", [0.01, 1.0])
def test_the_lfq_loss_equals_the_softmax_over_all_codes(temperature):
    """vector-quantize-pytorch writes all codes out; its logarithms stop at 1e-5."""
    latents = latents_of(LFQ(6))
    ours = LFQ(6, 0.1, 2.5, 0.25, temperature).train()(latents)
    library = lookup_free_quantization.LFQ(
        dim=6, entropy_loss_weight=0.1, diversity_gamma=2.5, commitment_loss_weight=0.25
    ).train()
    _, parts = library(latents, inv_temperature=1 / temperature, return_loss_breakdown=True)
    near = {"atol": 2e-3, "rtol": 0}
    torch.testing.assert_close(ours.stats["sample_entropy"], parts.per_sample_entropy, **near)
    torch.testing.assert_close(ours.stats["batch_entropy"], parts.batch_entropy, **near)
    loss = 0.1 * (parts.per_sample_entropy - 2.5 * parts.batch_entropy) + 0.25 * parts.commitment
    torch.testing.assert_close(ours.loss, loss, **near)


def test_the_vq_codebook_follows_as_in_the_library():
    """One update from the same codebook, averages and latents as vector-quantize-pytorch's."""
    ours = VQ(16, dim=4, decay=0.9, restart_share=0.0).train()
    ours(latents_of(ours))
    library = VectorQuantize(dim=4, codebook_size=16, decay=0.9, eps=0.0, commitment_weight=0.25)
    library.train()
    inner = library._codebook
    for name, value in (("embed", ours.codebook), ("embed_avg", ours.sums)):
        getattr(inner, name).copy_(value[None])
    inner.cluster_size.copy_(ours.counts[None])
    latents = latents_of(ours, seed=3)
    result = ours(latents)
    quantized, indices, loss = library(rearrange(latents, "b d t h w -> b (t h w) d"))
    assert torch.equal(result.tokens.flatten(), indices.flatten())
    rows = rearrange(result.latents, "b d t h w -> b (t h w) d")
    torch.testing.assert_close(rows, quantized)
    torch.testing.assert_close(result.loss, loss.squeeze())
    torch.testing.assert_close(ours.codebook, inner.embed[0])


def test_codes_out_of_use_move_onto_latents():
    """Latents that jump away leave every code but one dead; soon most are used again."""
    quantizer = VQ(32, dim=4, decay=0.5).train()
    quantizer(latents_of(quantizer))
    for seed in range(12):
        quantizer(20 + latents_of(quantizer, seed=seed))
    tokens = quantizer.eval()(20 + latents_of(quantizer, seed=99)).tokens
    assert tokens.unique().numel() > 24
    without = VQ(32, dim=4, decay=0.5, restart_share=0.0).train()
    without(latents_of(without))
    for seed in range(12):
        without(20 + latents_of(without, seed=seed))
    assert without.eval()(20 + latents_of(without, seed=99)).tokens.unique().numel() < 8


def on_codes(quantizer, used):
    """Latents that lie on some of the codes, each on the code itself."""
    return rearrange(quantizer.codebook[used], "n d -> 1 d 1 1 n")


def test_by_default_a_code_is_moved_after_69_steps_without_use_and_not_before():
    """At the mean count, the 0.05 of before took 298 steps, longer than a short run."""
    quantizer = VQ(8, dim=4).train()
    quantizer(rearrange(torch.eye(8, 4).add(torch.arange(8)[:, None]), "n d -> 1 d 1 1 n"))
    lost, place = 3, quantizer.codebook[3].clone()
    others = torch.tensor([i for i in range(8) if i != lost])
    for _ in range(68):
        quantizer(on_codes(quantizer, others))
    torch.testing.assert_close(quantizer.codebook[lost], place)
    quantizer(on_codes(quantizer, others))
    distances = (quantizer.codebook[others] - quantizer.codebook[lost]).norm(dim=1)
    assert float(distances.min()) < 1e-5
    assert quantizer.idle[lost] == 0


@pytest.mark.parametrize("l2", [False, True])
def test_with_a_restart_share_of_0_a_code_without_use_never_moves(l2):
    """Its count falls below 2^-149, the least that float32 holds, and used to be divided by."""
    quantizer = VQ(8, dim=8, l2=l2, decay=0.5, restart_share=0.0).train()
    quantizer(rearrange(torch.eye(8), "n d -> 1 d 1 1 n"))
    place = quantizer.codebook.clone()
    for _ in range(200):
        quantizer(on_codes(quantizer, torch.arange(7)))
    torch.testing.assert_close(quantizer.codebook, place)
    assert quantizer.counts[7] == 0
    quantizer(on_codes(quantizer, torch.arange(8)))
    torch.testing.assert_close(quantizer.codebook, place)


@pytest.mark.parametrize("every", [1, 50])
def test_a_code_in_regular_use_is_never_moved_however_little_it_is_used(every):
    quantizer = VQ(8, dim=4).train()
    quantizer(rearrange(torch.eye(8, 4).add(torch.arange(8)[:, None]), "n d -> 1 d 1 1 n"))
    rare, place = 3, quantizer.codebook[3].clone()
    often = torch.tensor([i for i in range(8) if i != rare] * 100)
    for step in range(1, 401):
        both = torch.cat([often, torch.tensor([rare])])
        quantizer(on_codes(quantizer, often if step % every else both))
    torch.testing.assert_close(quantizer.codebook[rare], place)


def test_a_codebook_of_before_the_count_of_idle_steps_is_read():
    before = VQ(32, dim=4).train()
    before(latents_of(before))
    state = {name: value for name, value in before.state_dict().items() if name != "idle"}
    after = VQ(32, dim=4)
    after.load_state_dict(state)
    assert torch.equal(after.codebook, before.codebook)


def test_latents_that_are_not_finite_move_no_code():
    quantizer = VQ(32, dim=4).train()
    quantizer(latents_of(quantizer))
    before = quantizer.codebook.clone()
    broken = latents_of(quantizer)
    broken[0, 0, 0, 0, 0] = math.nan
    quantizer(broken)
    assert torch.equal(quantizer.codebook, before)


def test_the_sphere_compares_directions_only():
    quantizer = VQ(32, dim=4, l2=True).train()
    latents = latents_of(quantizer)
    quantizer(latents)
    quantizer.eval()
    assert torch.equal(quantizer(latents).tokens, quantizer(7 * latents).tokens)
    norms = quantizer(latents).latents.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))


def test_kl_is_the_divergence_of_two_gaussians():
    bottleneck = KL(dim=3, weight=0.5)
    latents = latents_of(bottleneck)
    result = bottleneck.train()(latents)
    mean, log_variance = latents.chunk(2, dim=1)
    posterior = Normal(mean, ((log_variance - 5) / 2).exp())
    nats = kl_divergence(posterior, Normal(0.0, 1.0))
    torch.testing.assert_close(result.loss, 0.5 * nats.mean())
    torch.testing.assert_close(result.stats["nats_per_latent"], nats.sum(dim=1).mean())
    assert result.stats["active_dims"] == 3
    assert result.tokens is None


def test_kl_draws_in_training_and_gives_its_mean_otherwise():
    bottleneck = KL(dim=3)
    latents = latents_of(bottleneck)
    assert torch.equal(bottleneck.eval()(latents).latents, latents[:, :3])
    noise = bottleneck.train()(latents).latents - latents[:, :3]
    scaled = noise / ((latents[:, 3:] - 5) / 2).exp()
    assert float(scaled.std()) == pytest.approx(1, abs=0.1)


def test_a_dead_channel_of_kl_is_not_active():
    latents = latents_of(KL(dim=3))
    latents[:, 1] = 0.2
    assert KL(dim=3)(latents).stats["active_dims"] == 2


def test_kl_takes_a_single_position():
    """Its variance is 0, and not a warning of PyTorch's."""
    assert KL(dim=3)(latents_of(KL(dim=3))[:1, :, :1, :1, :1]).stats["active_dims"] == 0


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: FSQ([8, 2]), "at least 3"),
        (lambda: LFQ(0), "1 to 18"),
        (lambda: LFQ(19), "1 to 18"),
        (lambda: VQ(1), "at least 2"),
        (lambda: KL(0), "at least 1"),
    ],
)
def test_arguments_that_cannot_be_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        wrong()


class Precisions(TorchDispatchMode):
    """Notes how float32 is multiplied, at each product of matrices within it."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.mm.default:
            backends = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
            self.seen += [backend.fp32_precision for backend in backends]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_vq_picks_codes_in_float32_whatever_the_process_says(precision):
    """train.py, sample.py and evaluate.py allow TF32, which has 10 of the 23 digits."""
    quantizer, before = VQ(32, dim=4), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        with Precisions() as products:
            quantizer.train()(latents_of(quantizer))
        assert products.seen == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_vq_picks_the_codes_that_float64_does():
    quantizer, before = VQ(8192, dim=8).cuda().train(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        quantizer(torch.randn(2, 8, 4, 32, 32).cuda())  # draws the codebook
        latents = torch.randn(2, 8, 4, 32, 32).cuda()
        tokens = quantizer.eval()(latents).tokens
    finally:
        torch.set_float32_matmul_precision(before)
    rows = rearrange(latents, "b d t h w -> (b t h w) d").double()
    exact = torch.cdist(rows, quantizer.codebook.double()).argmin(1)
    assert (tokens.flatten() != exact).float().mean() < 1e-3


def test_vq_memory_is_bounded(largest):
    """Distances come in pieces of 2^24: the whole table of these has twice as many."""
    quantizer = VQ(8192, dim=4).train()
    rows = torch.randn(1, 4, 4, 32, 32)
    with largest as tensors:
        quantizer(rows)
    assert tensors.size == 2**24
    assert quantizer.eval()(rows).tokens.unique().numel() > 2000
    assert F.mse_loss(quantizer(rows).latents, rows) < 0.1
