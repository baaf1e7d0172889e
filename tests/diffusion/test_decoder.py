"""The diffusion decoder around its network: what is sampled, from what, and in which windows."""

import copy

import pytest
import torch

from diffusion import DiffusionDecoder, DiffusionObjective, UNet3D
from diffusion.condition import Condition
from diffusion.decoding import Sampling
from diffusion.schedule import CosineSchedule
from diffusion.wishes import Kept
from layers.storage import load_module, read_json, save_module, write_json
from tokenizer import Tokenizer

STEPS, STEP = 3, Sampling(1)


def decoder_of(tokenizer: Tokenizer, **options) -> DiffusionDecoder:
    torch.manual_seed(0)
    decoder = DiffusionDecoder(UNet3D([32, 32], [1, 1]), 200, [4, 8], **options)
    for p in decoder.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    decoder.scale.fill_(0.3)
    if decoder.whitening is not None:
        shape = 4, 3, 5, 32, 32
        decoder.whitening.fit(0.3 * torch.rand(shape, generator=torch.Generator().manual_seed(2)))
    decoder.attach(tokenizer)
    return decoder.eval()


@pytest.fixture(params=[False, True], ids=["pixels", "whitened"])
def decoder(tiny_tokenizer, request):
    return decoder_of(tiny_tokenizer, whiten=request.param)


@pytest.fixture
def tokens():
    return torch.randint(200, (2, 6, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def clip(tiny_tokenizer):
    return torch.rand(4, 3, 9, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("use", ["refine", "read", "none"])
@pytest.mark.parametrize("num_latents", [1, 2, 3, 6])
def test_a_clip_has_the_frames_of_its_tokens(tiny_tokenizer, tokens, use, num_latents):
    decoder = decoder_of(tiny_tokenizer, use=use)
    clip = decoder.decode(tokens[:, :num_latents], steps=1)
    assert clip.shape == (2, 3, 1 + 4 * (num_latents - 1), 32, 32)
    assert clip.abs().max() <= 1


@pytest.mark.parametrize("solver", ["ddim", "ancestral"])
def test_a_clip_depends_on_its_seed_alone(decoder, tokens, solver):
    both = decoder.decode(tokens, seed=5, steps=STEPS, solver=solver)
    alone = decoder.decode(tokens[1:], seed=6, steps=STEPS, solver=solver)
    torch.testing.assert_close(both[1:], alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both, decoder.decode(tokens, seed=[8, 9], steps=STEPS), atol=1e-3)


@pytest.mark.parametrize("joint", ["guided", "replaced"])
def test_kept_frames_of_several_windows_come_back(decoder, tokens, clip, joint):
    whole = torch.cat([clip, clip, clip], dim=2)[:2, :, :21] / 2
    frames = torch.arange(21) % 5 == 2
    found = decoder.decode(tokens, steps=2, joint=joint, kept=Kept(whole, frames))
    torch.testing.assert_close(found[:, :, frames], whole[:, :, frames], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[:, :, ~frames], whole[:, :, ~frames], atol=0.1)


@pytest.mark.parametrize("sizes", [[1] * 6, [2, 4], [5, 1]])
def test_a_stream_is_one_pass(decoder, tokens, sizes):
    whole = decoder.decode(tokens, seed=5, steps=STEPS)
    parts = list(decoder.stream_decode(tokens.split(sizes, dim=1), 5, Sampling(STEPS)))
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-4, rtol=1e-4)
    assert len(parts) > 1


def test_a_saved_decoder_is_bit_for_bit_the_same(decoder, tiny_tokenizer, tokens, tmp_path):
    save_module(decoder, tmp_path)
    again = load_module(tmp_path)
    again.attach(tiny_tokenizer)
    assert torch.equal(again.decode(tokens, steps=STEPS), decoder.decode(tokens, steps=STEPS))


def test_a_folder_from_before_decoders_had_steps_has_the_default(decoder, tmp_path):
    save_module(decoder, tmp_path)
    config = read_json(tmp_path / "config.json")
    del config["arguments"]["steps"]
    write_json(tmp_path / "config.json", config)
    assert load_module(tmp_path).steps == 20
    decoder.take_steps(4)
    save_module(decoder, tmp_path)
    assert load_module(tmp_path).steps == 4


def test_an_untrained_decoder_of_one_step_gives_what_the_cnn_gives(tiny_tokenizer, tokens):
    decoder = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8])
    decoder.attach(tiny_tokenizer)
    with torch.no_grad():
        expected = tiny_tokenizer.decode(tokens).clamp(-1, 1)
    # From pure noise a velocity of 0 means a difference of 0.
    torch.testing.assert_close(decoder.decode(tokens, steps=1), expected, atol=1e-5, rtol=1e-5)


def test_an_untrained_loss_is_the_mean_square_of_what_is_asked(decoder, clip, tokens):
    decoder.project.weight.data.zero_()
    decoder.project.bias.data.zero_()
    base = torch.zeros_like(clip)
    decoder.calibrate(clip, base)
    scale = decoder.scale if decoder.whitening is None else decoder.whitening.deviations
    assert scale.square().mean().sqrt().item() == pytest.approx(3**-0.5, rel=0.01)
    losses = [
        decoder.loss(clip, tokens[:, :3].repeat(2, 1, 1, 1), base, torch.Generator().manual_seed(s))
        for s in range(8)
    ]
    # Clip and noise both have deviation 1, and so has every velocity.
    assert torch.stack(losses).mean().item() == pytest.approx(1, rel=0.02)


@pytest.mark.parametrize("use", ["refine", "read", "none"])
@pytest.mark.parametrize("whiten", [False, True])
def test_what_stands_still_is_at_hand(tiny_tokenizer, clip, tokens, use, whiten):
    """A network that knows no more than that nothing moves has the mean of what is known."""
    decoder = decoder_of(tiny_tokenizer, use=use, whiten=whiten)
    pixels = 3 * decoder.patch**2
    decoder.project.weight.data.zero_()
    decoder.project.bias.data.zero_()[2 * pixels :] = 1
    base = clip.flip(0) if use != "none" else torch.zeros_like(clip)
    known = torch.arange(9) < torch.tensor([[0], [1], [5], [0]])
    z = torch.where(known[:, None, :, None, None], decoder.inward(clip, base), 100.0)
    condition = Condition(
        tokens[:, :3].repeat(2, 1, 1, 1), base, torch.zeros(4).bool(), [[]] * 4, torch.zeros(4)
    )
    still = decoder.predict(z, (~known).float(), condition)
    if use != "refine":
        still = still + decoder.inward(base, base)
    means = [base[:1].mean(2), clip[1:2, :, 0], clip[2:3, :, :5].mean(2), base[3:].mean(2)]
    expected = torch.cat(means)[:, :, None].expand_as(clip)
    torch.testing.assert_close(decoder.outward(still, base), expected, atol=1e-4, rtol=1e-4)


def test_known_frames_enter_clean_and_are_not_asked_for(decoder, clip, tokens, monkeypatch):
    """A network that is wrong in known frames only has no loss."""
    seen = {}
    generator, truth = torch.Generator().manual_seed(3), decoder.inward(clip, clip * 0)

    def spy(z, angle, condition):
        known = (angle == 0)[:, None, :, None, None]
        seen.update(known=known.flatten(), angle=angle)
        torch.testing.assert_close(torch.where(known, z, 0), torch.where(known, truth, 0))
        alpha = angle.cos()[:, None, :, None, None]
        sigma = angle.sin()[:, None, :, None, None]
        v = (alpha * z - truth) / sigma.clamp(min=1e-6)
        return torch.where(known, 99.0, v)

    monkeypatch.setattr(decoder, "predict", spy)
    loss = decoder.loss(clip, tokens[:, :3].repeat(2, 1, 1, 1), torch.zeros_like(clip), generator)
    assert 0 < seen["known"].sum() < seen["known"].numel()
    assert loss < 1e-4


def test_corruption_replaces_as_many_tokens_as_it_says(tiny_tokenizer):
    tokens = torch.randint(200, (64, 5, 8, 8))
    decoder = decoder_of(tiny_tokenizer, corruption=0.2)
    rates = (decoder.corrupt(tokens, torch.Generator()) != tokens).float().mean(dim=(1, 2, 3))
    assert 0.07 < rates.mean() < 0.13
    assert 0.15 < rates.max() < 0.26
    clean = decoder_of(tiny_tokenizer, corruption=0.0)
    assert torch.equal(clean.corrupt(tokens, torch.Generator()), tokens)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_guidance_s_blind_side_is_trained_on_some_of_what_is_dropped(tiny_tokenizer, share):
    network = UNet3D([32], [1], text_width=16)
    decoder = DiffusionDecoder(network, 200, [4, 8], text_size=20, dropout=share)
    clip, tokens = torch.zeros(4000, 3, 1, 8, 8), torch.zeros(4000, 1, 1, 1, dtype=torch.long)
    generator = torch.Generator().manual_seed(0)
    condition = decoder.draw(clip, tokens, clip, generator, [[1]] * 4000).condition
    blind, textless = condition.dropped, torch.tensor([not text for text in condition.texts])
    both = min(share / 2, 0.1)
    for found, expected in (
        (blind & textless, both),
        (blind & ~textless, share - both),
        (~blind & textless, min(both, 1 - share)),
    ):
        assert found.float().mean().item() == pytest.approx(expected, abs=0.02)


def test_guidance_of_one_is_off_and_more_goes_away_from_no_condition(decoder, tokens):
    plain = decoder.decode(tokens[:, :1], steps=1)
    assert torch.equal(plain, decoder.decode(tokens[:, :1], steps=1, guidance_scale=1.0))
    blind = decoder.decode(tokens[:, :1], steps=1, guidance_scale=0.0)
    twice = decoder.decode(tokens[:, :1], steps=1, guidance_scale=2.0)
    inside = (plain.abs() < 1) & (blind.abs() < 1) & (twice.abs() < 1)
    torch.testing.assert_close((2 * plain - blind)[inside], twice[inside], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain, twice, atol=1e-3)


class Smooth(DiffusionDecoder):
    """Knows the best guess for clips in which each pixel follows x' = r x + sqrt(1 - r^2) noise."""

    correlation = 0.9

    def predict(self, z, angle, condition):
        frames = torch.arange(z.shape[2])
        covariance = self.correlation ** (frames[:, None] - frames).abs().double()
        x = torch.empty_like(z)
        alpha, sigma = angle[0].double().cos(), angle[0].double().sin()
        mixed = alpha[:, None] * covariance * alpha + torch.diag(sigma.square())
        gain = covariance * alpha @ torch.linalg.inv(mixed)
        x = torch.einsum("s t, b c t h w -> b c s h w", gain.float(), z)
        alpha, sigma = (a.float()[:, None, None] for a in (alpha, sigma))
        return (alpha * z - x) / sigma.clamp(min=1e-3)


def smooth(tokenizer, **options):
    decoder = Smooth(UNet3D([32], [1]), 200, [4, 8], use="none", **options)
    decoder.scale.fill_(0.2)  # far from the ends of the range, where clips are cut off
    decoder.attach(tokenizer)
    return decoder


def test_what_lies_between_known_ends_is_filled_in(tiny_tokenizer):
    """By guidance with nearly the mean and deviation that a Gaussian has given its ends."""
    decoder, frames = smooth(tiny_tokenizer), torch.arange(9)
    ends, values = (frames == 0) | (frames == 8), torch.tensor([1.6, -1.2])
    clip = torch.zeros(2, 3, 9, 64, 64)
    clip[:, :, ends] = 0.2 * values[:, None, None]
    covariance = decoder.correlation ** (frames[:, None] - frames).abs()
    gain = covariance[:, ends] @ torch.linalg.inv(covariance[ends][:, ends])
    deviation = (covariance - gain @ covariance[ends]).diagonal().clamp(min=0).sqrt()
    tokens, misses = torch.zeros(2, 3, 8, 8, dtype=torch.long), {}
    for joint in ("given", "guided", "replaced"):
        found = decoder.decode(tokens, steps=40, joint=joint, kept=Kept(clip, ends)) / 0.2
        torch.testing.assert_close(found[:, :, ends], clip[:, :, ends] / 0.2)
        pixels = found.transpose(0, 2).flatten(1)
        misses[joint] = [
            float((pixels.mean(1) - gain @ values).abs().max()),
            float((pixels.std(1) - deviation).abs().max()),
        ]
    assert misses["given"] == misses["guided"]  # where nothing is given in front
    assert misses["guided"][0] < 0.2 < 0.5 < misses["replaced"][0]
    assert misses["guided"][1] < 0.06 < 0.2 < misses["replaced"][1]


def test_guided_windows_join_better_than_replaced_ones(tiny_tokenizer):
    decoder, tokens = smooth(tiny_tokenizer), torch.zeros(2, 7, 8, 8, dtype=torch.long)
    given, guided, replaced = (
        decoder.decode(tokens, steps=40, joint=joint).diff(dim=2).square().mean(dim=(0, 1, 3, 4))
        for joint in ("given", "guided", "replaced")
    )
    for seam in (8, 16):
        assert guided[seam] < 1.3 * given[seam]
        assert replaced[seam] > 3 * guided[seam]


@pytest.mark.parametrize(("window", "overlap"), [(2, 1), (3, 1), (3, 2)])
def test_long_clips_have_no_seams(tiny_tokenizer, window, overlap):
    """Frames differ where windows meet as much as elsewhere, and as much as in the data."""
    decoder = smooth(tiny_tokenizer, window=window, overlap=overlap)
    clip = decoder.decode(torch.zeros(4, 11, 8, 8, dtype=torch.long), steps=100) / 0.2
    change = clip.diff(dim=2).square().mean(dim=(0, 1, 3, 4))
    expected = torch.full_like(change, 2 * (1 - decoder.correlation))
    torch.testing.assert_close(change, expected, atol=0, rtol=0.08)
    spread = clip.square().mean(dim=(0, 1, 3, 4))
    torch.testing.assert_close(spread, torch.ones_like(spread), atol=0, rtol=0.08)


@pytest.mark.parametrize("solver", ["ddim", "ancestral"])
def test_frames_of_a_clip_share_noise(tiny_tokenizer, tokens, monkeypatch, solver):
    decoder = decoder_of(tiny_tokenizer, noise_correlation=0.8, use="none")
    decoder.scale.fill_(0.2)
    # At pure noise this velocity means that the noise is the clip.
    monkeypatch.setattr(decoder, "predict", lambda z, angle, condition: -z)
    one = decoder.decode(tokens[:, :3], steps=1, solver=solver) / decoder.scale
    assert one.std() == pytest.approx(1, abs=0.05)
    # Half of what two steps end with is noise that the first one drew, where it drew any.
    noise = decoder.decode(tokens[:, :3], steps=2, solver=solver) / decoder.scale
    pairs = torch.stack([noise[:, :, 0].flatten(), noise[:, :, 5].flatten()])
    assert pairs.corrcoef()[0, 1] == pytest.approx(0.8, abs=0.05)


def test_another_tokenizer_is_refused(decoder, tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.encoder.project.weight.data.add_(1)
    with pytest.raises(ValueError, match="use the tokenizer that"):
        decoder.attach(other)


def test_another_cnn_decoder_is_refused_where_it_is_used(decoder, tiny_tokenizer):
    other = copy.deepcopy(tiny_tokenizer)
    other.decoder.conv_out.weight.data.add_(1)
    with pytest.raises(ValueError, match="use the CNN decoder that"):
        decoder.attach(other)
    decoder_of(tiny_tokenizer, use="none").attach(other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"patch": 3}, "must divide"),
        ({"window": 3, "overlap": 3}, "needs 1 to 2"),
        ({"window": 3, "overlap": 0}, "needs 1 to 2"),
        ({"noise_correlation": 1.0}, "must be in"),
        ({"corruption": 1.5}, "corruption"),
        ({"dropout": -0.1}, "dropout"),
        ({"steps": 0}, "steps is 0"),
        ({"window": 0}, "window is 0, but must be 1 or more"),
        ({"patch": 0}, "patch is 0"),
        ({"base_noise": -1.0}, "base_noise is -1"),
        ({"base_noise": 0.5, "use": "none"}, r"base_noise 0.5 with use: none; .* a use of the CNN"),
    ],
)
def test_what_cannot_be_built_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], **options)


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"use": "reed"}, "use is 'reed', but must be one of refine, read, none"),
        ({"control": "depth"}, "control is 'depth', but must be one of edges, low resolution"),
    ],
)
def test_a_word_that_no_decoder_knows_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8], **options)


@pytest.mark.parametrize(("codes", "strides"), [(100, [4, 8]), (200, [2, 8]), (200, [4, 16])])
def test_a_fresh_decoder_refuses_a_tokenizer_of_other_sizes(tiny_tokenizer, codes, strides):
    decoder = DiffusionDecoder(UNet3D([32], [1]), codes, strides)
    with pytest.raises(ValueError, match=r"its tokenizer 200 and \[4, 8\]; set them to that"):
        decoder.attach(tiny_tokenizer)
    assert not decoder.pins.any()


def test_what_cannot_be_decoded_is_refused(decoder, tokens):
    with pytest.raises(ValueError, match="steps is 0"):
        decoder.decode(tokens, steps=0)
    with pytest.raises(ValueError, match="one each"):
        decoder.decode(tokens, seed=[1])
    with pytest.raises(ValueError, match="200"):
        decoder.decode(tokens + 199)
    clip, frames = torch.zeros(2, 3, 21, 32, 32), torch.ones(21, dtype=torch.bool)
    for kept in (Kept(clip[:, :, :17], frames[:17]), Kept(clip, frames[:17])):
        with pytest.raises(ValueError, match="tell it of each"):
            decoder.decode(tokens, steps=1, kept=kept)
    fresh = DiffusionDecoder(UNet3D([32], [1]), 200, [4, 8])
    with pytest.raises(ValueError, match="attach"):
        fresh.decode(tokens)


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.uint16, torch.int32])
@pytest.mark.parametrize("use", ["refine", "none"])
def test_tokens_of_any_integers_are_the_same(tiny_tokenizer, tokens, kind, use):
    decoder = decoder_of(tiny_tokenizer, use=use)
    whole = decoder.decode(tokens[:, :2], steps=1)
    assert torch.equal(decoder.decode(tokens[:, :2].to(kind), steps=1), whole)


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("use", ["refine", "none"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tokens: tokens.float(), "must be integers"),
        (lambda tokens: tokens > 3, "must be integers"),
        (lambda tokens: tokens[:, :0], "none of the sizes 0"),
        (lambda tokens: tokens[0], r"\(B, t, h, w\)"),
        (lambda tokens: tokens - 200, "lie in"),
    ],
)
def test_what_is_no_token_is_refused(tiny_tokenizer, tokens, use, change, words):
    with pytest.raises(ValueError, match=words):
        decoder_of(tiny_tokenizer, use=use).decode(change(tokens), steps=1)


@pytest.mark.parametrize("use", ["refine", "none"])
def test_a_long_chunk_is_decoded_in_constant_memory(tiny_tokenizer, largest, use):
    decoder = decoder_of(tiny_tokenizer, use=use, token_width=8)
    tokens, sizes = torch.zeros(1, 120, 2, 2, dtype=torch.long), []
    for count in (12, 120):
        largest.size = 0
        with largest:
            parts = sum(p.shape[2] for p in decoder.stream_decode([tokens[:, :count]], 0, STEP))
        assert parts == 1 + 4 * (count - 1)
        sizes.append(largest.size)
    assert sizes[0] == sizes[1]


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 3, 4, 32, 32), r"K = 1 \+ 4 k frames; cut it"),
        ((2, 3, 0, 32, 32), r"K = 1 \+ 4 k frames"),
        ((3, 5, 32, 32), r"must be \(B, 3, K, H, W\)"),
        ((1, 3, 5, 32, 32), "of as many clips"),
        ((2, 1, 5, 32, 32), "of as many clips"),
        ((2, 3, 5, 16, 32), "of their size"),
        ((2, 3, 21, 32, 32), "21 frames and the clip no more"),
        ((2, 3, 25, 32, 32), "25 frames and the clip no more"),
    ],
)
def test_known_frames_that_are_no_beginning_of_the_clip_are_refused(decoder, tokens, shape, words):
    with pytest.raises(ValueError, match=words):
        decoder.decode(tokens, steps=1, known=torch.zeros(shape))


def test_known_frames_are_continued(decoder, tokens):
    known = decoder.decode(tokens[:, :4], seed=5, steps=1)
    assert decoder.decode(tokens, steps=1, known=known).shape[2] == 21 - 13


@pytest.mark.parametrize("prediction", ["v", "x"])
def test_predictions_of_both_kinds_decode(tiny_tokenizer, tokens, prediction):
    objective = DiffusionObjective(CosineSchedule(), prediction)
    decoder = decoder_of(tiny_tokenizer, objective=objective)
    clip = decoder.decode(tokens, steps=STEPS)
    assert bool(clip.isfinite().all())
