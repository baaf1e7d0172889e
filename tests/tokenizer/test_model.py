"""The tokenizer's promises: causality, streaming, frame arithmetic, honest errors."""

import json

import pytest
import torch

from layers.configurable import build
from tokenizer import FSQ, KL, LFQ, VQ, Tokenizer, codec_of
from tokenizer.presets import preset

STRIDE = 4
VARIANTS = {
    "factorised": {"channels": [16, 64], "strides": [[2, 2]]},
    "full 3D": {"channels": [16, 64], "strides": [[2, 2]], "factorized": False},
    "unshuffled": {"channels": [16, 64], "strides": [[2, 2]], "wavelet": False},
    "attentive": {
        "channels": [16, 64],
        "strides": [[2, 2]],
        "spatial_attention": True,
        "temporal_window": 3,
    },
    "deep": {
        "patch": [1, 2],
        "channels": [8, 16, 64],
        "strides": [[2, 2], [2, 2]],
        "temporal_window": 2,
    },
}


def variant(name: str, clip: torch.Tensor) -> Tokenizer:
    """Return a small tokenizer of a kind, with every parameter away from its start."""
    torch.manual_seed(0)
    options = VARIANTS[name]
    depths = [1] * len(options["channels"])
    tokenizer = Tokenizer(FSQ([8, 5, 5]), **options, encoder_depths=depths, decoder_depths=depths)
    for p in tokenizer.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    tokenizer.calibrate(clip)
    return tokenizer


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("frame", [1, 4, 5, 9, 16])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_frame_changes_nothing_before_it(clip, frame, training, name, checkpointed):
    """Norms that pool over time, as in Open-MAGVIT2, or batch norms fail here."""
    tokenizer = variant(name, clip).train(training)
    tokenizer.keep_activations(not checkpointed)
    changed = clip.clone()
    changed[:, :, frame:] = -changed[:, :, frame:]
    before, after = tokenizer(clip), tokenizer(changed)
    first = -(-frame // STRIDE)
    pixels = STRIDE * (first - 1) + 1 if first else 0
    tokens = before.quantized.tokens, after.quantized.tokens
    assert torch.equal(tokens[0][:, :first], tokens[1][:, :first])
    assert torch.equal(before.clip[:, :, :pixels], after.clip[:, :, :pixels])
    assert not torch.equal(tokens[0][:, first:], tokens[1][:, first:])


def test_checkpointing_changes_no_gradient(clip):
    gradients = []
    for keep in (True, False):
        tokenizer = variant("attentive", clip)
        tokenizer.keep_activations(keep)
        tokenizer(clip).clip.square().mean().backward()
        gradients.append([p.grad for p in tokenizer.parameters()])
    for kept, computed_twice in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, computed_twice)


def test_checkpointing_changes_no_gradient_of_a_stream(clip):
    gradients = []
    for keep in (True, False):
        tokenizer, cache = variant("attentive", clip), {}
        tokenizer.keep_activations(keep)
        parts = [tokenizer.encoder(part, cache) for part in clip.split([1, 8, 8], dim=2)]
        torch.cat(parts, dim=2).square().mean().backward()
        gradients.append([p.grad for p in tokenizer.encoder.parameters()])
    for kept, computed_twice in zip(*gradients, strict=True):
        torch.testing.assert_close(kept, computed_twice)


@pytest.mark.parametrize(
    ("patch", "strides", "frames", "grid"),
    [
        ([4, 8], [], 17, (5, 4, 4)),
        ([1, 4], [[1, 2]], 5, (5, 4, 4)),
        ([2, 4], [[2, 2]], 17, (5, 4, 4)),
        ([2, 4], [[2, 2], [2, 2]], 17, (3, 2, 2)),
    ],
)
def test_compression_is_a_matter_of_configuration(clip, patch, strides, frames, grid):
    channels = [16] * (len(strides) + 1)
    tokenizer = Tokenizer(
        FSQ([5, 5]),
        patch=patch,
        strides=strides,
        channels=channels,
        encoder_depths=[1] * len(channels),
        decoder_depths=[1] * len(channels),
    )
    tokens = tokenizer.encode(clip[:, :, :frames])
    assert tokens.shape[1:] == grid
    assert tokenizer.decode(tokens).shape[2:] == (frames, 32, 32)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"patch": [2]}, r"patch is \[2\].*\(temporal, spatial\)"),
        ({"patch": [0, 4]}, r"patch is \[0, 4\].*at least 1"),
        ({"strides": [[2]]}, r"strides is \[\[2\]\].*\(temporal, spatial\)"),
        ({"strides": [[0, 2]]}, r"strides is \[\[0, 2\]\].*at least 1"),
        ({"strides": [[2, 2], [2, 2]]}, "one stride fewer"),
        ({"strides": []}, r"one stride fewer, not \[\]"),
        ({"channels": []}, r"channels \[\] has 0 levels"),
        ({"patch": []}, r"patch is \[\].*\(temporal, spatial\)"),
    ],
)
def test_factors_that_are_none_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Tokenizer(FSQ([5, 5]), **wrong)


@pytest.mark.parametrize(("name", "low", "high"), [("tiny", 5, 10), ("base", 100, 160)])
def test_presets_have_the_size_they_promise(name, low, high):
    with torch.device("meta"):
        tokenizer = preset(name, FSQ([8, 5, 5, 5]))
    assert low <= sum(p.numel() for p in tokenizer.parameters()) / 1e6 <= high
    assert (tokenizer.temporal_stride, tokenizer.spatial_stride) == (4, 8)


def test_a_continuous_tokenizer_has_latents_and_no_tokens(clip):
    tokenizer = Tokenizer(KL(4), channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1])
    tokenizer.calibrate(clip)
    latents = tokenizer.eval().encode_latents(clip).latents
    assert latents.shape == (1, 4, 5, 4, 4)
    torch.testing.assert_close(tokenizer.decode_latents(latents), tokenizer(clip).clip)
    for wrong in (lambda: tokenizer.encode(clip), lambda: tokenizer.codebook_size):
        with pytest.raises(ValueError, match="continuous"):
            wrong()


@pytest.mark.parametrize("quantizer", [FSQ([5, 5]), LFQ(4), VQ(32, dim=4), KL(3)])
def test_encoding_in_train_mode_changes_and_draws_nothing(clip, quantizer):
    arguments = {"channels": [16, 32], "encoder_depths": [1, 1], "decoder_depths": [1, 1]}
    tokenizer = Tokenizer(build(quantizer.config), **arguments)
    tokenizer.calibrate(clip)
    tokenizer.train()(clip)  # draws the codebook
    expected = tokenizer.eval().encode_latents(clip).latents
    before = {name: value.clone() for name, value in tokenizer.state_dict().items()}
    tokenizer.train()
    codec, state = codec_of(tokenizer), torch.get_rng_state()
    assert torch.equal(tokenizer.encode_latents(clip).latents, expected)
    codec.encode(clip)
    list(codec.stream_encode(clip.split(5, dim=2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], x) for name, x in tokenizer.state_dict().items())
    assert all(module.training for module in tokenizer.modules())


def test_an_image_is_a_clip_of_one_frame(tiny_tokenizer, clip):
    whole = tiny_tokenizer.encoder(clip)
    image = tiny_tokenizer.encoder(clip[:, :, :1])
    torch.testing.assert_close(image, whole[:, :, :1], atol=1e-5, rtol=0)
    tokens = tiny_tokenizer.encode(clip)
    assert (tiny_tokenizer.encode(clip[:, :, :1]) == tokens[:, :1]).float().mean() > 0.99


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("chunks", [[17], [1, 16], [1, 4, 4, 4, 4], [5, 8, 4], [13, 4]])
def test_chunks_equal_one_pass(clip, chunks, name):
    tiny_tokenizer = variant(name, clip).eval()
    whole = tiny_tokenizer.encoder(clip)
    encoding: dict = {}
    parts = [tiny_tokenizer.encoder(part, encoding) for part in clip.split(chunks, dim=2)]
    torch.testing.assert_close(torch.cat(parts, dim=2), whole, atol=1e-5, rtol=0)
    latents = tiny_tokenizer.quantizer(whole).latents
    decoding: dict = {}
    sizes = [part.shape[2] for part in parts]
    frames = [tiny_tokenizer.decoder(part, decoding) for part in latents.split(sizes, dim=2)]
    torch.testing.assert_close(
        torch.cat(frames, dim=2), tiny_tokenizer.decoder(latents), atol=1e-5, rtol=0
    )
    assert [frame.shape[2] for frame in frames] == chunks


@pytest.mark.parametrize("name", VARIANTS)
def test_a_static_clip_has_static_latents(clip, name):
    """Where zeros pad in time, as in magvit2-pytorch, latents tell how late it is."""
    tiny_tokenizer = variant(name, clip)
    still = clip[:, :, :1].expand(-1, -1, 17, -1, -1)
    latents = tiny_tokenizer.encoder(still)
    torch.testing.assert_close(latents, latents[:, :, :1].expand_as(latents), atol=1e-5, rtol=0)


def test_frame_arithmetic_both_ways(tiny_tokenizer):
    for latent_frames in range(1, 20):
        frames = tiny_tokenizer.num_frames(latent_frames)
        assert tiny_tokenizer.num_latent_frames(frames) == latent_frames
    for bad in (0, 2, 16, 18):
        with pytest.raises(ValueError, match=r"1 \+ 4 k"):
            tiny_tokenizer.num_latent_frames(bad)


def test_shapes_of_tokens_and_clips(tiny_tokenizer, clip):
    tokens = tiny_tokenizer.encode(clip)
    assert tokens.shape == (1, 5, 4, 4)
    assert tiny_tokenizer.decode(tokens).shape == clip.shape


def test_clips_that_are_all_one_colour_calibrate_to_numbers(tiny_tokenizer):
    tiny_tokenizer.calibrate(torch.full((2, 3, 5, 32, 32), -1.0))
    clip = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert tiny_tokenizer.encode_latents(clip).latents.isfinite().all()
    assert tiny_tokenizer(clip).clip.isfinite().all()


def test_the_projection_is_calibrated(tiny_tokenizer):
    clip = torch.rand(4, 3, 5, 32, 32) * 2 - 1
    tiny_tokenizer.calibrate(clip)
    latents = tiny_tokenizer.encoder(clip)
    assert tiny_tokenizer.calibrated
    torch.testing.assert_close(latents.mean((0, 2, 3, 4)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3, 4)), torch.ones(3), atol=1e-3, rtol=0)


def test_every_parameter_gets_a_gradient(tiny_tokenizer, clip):
    tiny_tokenizer(clip).clip.square().mean().backward()
    missing = [
        n for n, p in tiny_tokenizer.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert missing == []


def test_a_description_rebuilds_the_tokenizer_bit_for_bit(tiny_tokenizer, clip):
    twin = build(json.loads(json.dumps(tiny_tokenizer.config)))
    twin.load_state_dict(tiny_tokenizer.state_dict())
    assert torch.equal(twin.encode(clip), tiny_tokenizer.encode(clip))
    assert twin.fingerprint() == tiny_tokenizer.fingerprint()


def test_the_fingerprint_covers_the_encoder_and_not_the_decoder(tiny_tokenizer):
    before = tiny_tokenizer.fingerprint()
    tiny_tokenizer.decoder.conv_in.weight.data += 1
    assert tiny_tokenizer.fingerprint() == before
    tiny_tokenizer.encoder.conv_in.weight.data += 1
    assert tiny_tokenizer.fingerprint() != before


def test_fingerprints_stay_those_that_are_written_down_in_model_folders():
    quantizer, depths = VQ(4, dim=2, restart_share=0.05), [1, 1]
    tokenizer = Tokenizer(
        quantizer, [1, 2], [2, 2], [[1, 1]], encoder_depths=depths, decoder_depths=depths
    )
    for value in tokenizer.state_dict().values():
        value.fill_(1)
    assert tokenizer.fingerprint() == "9fd87c399fde1edd"
    assert tokenizer.decoder_fingerprint() == "b1e9c2096a401f02"


def test_the_fingerprint_tells_levels_of_another_order_apart():
    """Both have the same weights, and give other tokens."""
    first, second = (Tokenizer(FSQ(levels), channels=[16, 32]) for levels in ([5, 3], [3, 5]))
    second.load_state_dict(first.state_dict(), strict=False)
    assert first.fingerprint() != second.fingerprint()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda clip: clip * 100, r"\[-1, 1\]"),
        (lambda clip: clip * float("nan"), r"\[-1, 1\]"),
        (lambda clip: clip[:, :, :16], "use 13 or 17"),
        (lambda clip: clip[..., :30], "spatial stride 8"),
    ],
)
def test_a_clip_that_does_not_fit_is_refused(tiny_tokenizer, clip, change, words):
    with pytest.raises(ValueError, match=words):
        tiny_tokenizer.encode(change(clip))


@pytest.mark.parametrize(("frames", "remedy"), [(3, "use 4$"), (7, "use 4 or 8$")])
def test_a_later_chunk_of_a_wrong_length_is_told_its_own_rule(tiny_tokenizer, clip, frames, remedy):
    cache: dict = {}
    tiny_tokenizer.encode(clip[:, :, :5], cache)
    with pytest.raises(ValueError, match=f"has {frames} frames.*needs 4 k; {remedy}"):
        tiny_tokenizer.encode(clip[:, :, :frames], cache)
    tiny_tokenizer.encode(clip[:, :, :4], cache)


def test_tokens_of_another_codebook_are_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="200 codes"):
        tiny_tokenizer.decode(torch.full((1, 1, 4, 4), 200))
