"""Bad input meets a sentence with the remedy, also where no type checker runs before it."""

import numpy as np
import pytest
import torch

from data.datamodule import Batch
from pipeline import VideoPipeline
from tokenizer import FSQ, LFQ, VQ, LatentCodec, TiledTokenizer, Tokenizer, TokenizerModule
from tokenizer.codec import encode_file, encode_video

CLIPS = {
    "uint8": (lambda clip: (clip * 127 + 128).to(torch.uint8), "to_model_range"),
    "integers": (lambda clip: clip.long(), "floating point"),
    "uint8 as float": (lambda clip: clip * 127.5 + 127.5, r"\[-1, 1\]; convert uint8"),
    "a little out of range": (lambda clip: clip * 0 + 1.02, r"1\.02.*\[-1, 1\]"),
    "not a number": (lambda clip: clip.index_fill(2, torch.tensor(3), torch.nan), "finite"),
    "infinite": (lambda clip: clip.index_fill(2, torch.tensor(3), torch.inf), "finite"),
    "grey": (lambda clip: clip[:, :1], r"\(B, 3, T, H, W\)"),
    "with alpha": (lambda clip: torch.cat([clip, clip[:, :1]], dim=1), r"\(B, 3, T, H, W\)"),
    "channels last": (lambda clip: clip.movedim(1, -1), r"\(B, 3, T, H, W\)"),
    "no batch": (lambda clip: clip[0], r"\(B, 3, T, H, W\)"),
    "no frame": (lambda clip: clip[:, :, :0], "at least 1 frame"),
    "no clip": (lambda clip: clip[:0], "no pixel"),
    "wrong length": (lambda clip: clip[:, :, :16], "use 13 or 17"),
    "wrong width": (lambda clip: clip[..., :30], "multiples of the spatial stride 8"),
}
TOKENS = {
    "float": (lambda tokens: tokens.float(), "integers"),
    "bool": (lambda tokens: tokens > 0, "integers"),
    "negative": (lambda tokens: tokens - 200, "codebook has 200 codes"),
    "too large": (lambda tokens: tokens * 0 + 200, "codebook has 200 codes"),
    "no frame": (lambda tokens: tokens[:, :0], r"\(B, t, h, w\)"),
    "a sequence": (lambda tokens: tokens.flatten(1), r"\(B, t, h, w\)"),
}
LATENTS = {
    "integers": (lambda latents: latents.long(), "floating point"),
    "of another tokenizer": (lambda latents: latents[:, :2], r"\(B, 3, t, h, w\)"),
    "no batch": (lambda latents: latents[0], r"\(B, 3, t, h, w\)"),
    "no frame": (lambda latents: latents[:, :, :0], "none of them 0"),
}
FRAMES = {
    "none": ([], "no chunk"),
    "float": ([np.zeros((16, 16, 3))], "uint8"),
    "grey": ([np.zeros((16, 16), np.uint8)], r"\(H, W, 3\)"),
    "two sizes": ([np.zeros((16, n, 3), np.uint8) for n in (16, 24)], "frame 1.*resize"),
}


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_that_does_not_fit_is_refused(tiny_tokenizer, clip, name):
    change, words = CLIPS[name]
    with pytest.raises(ValueError, match=words):
        tiny_tokenizer.encode(change(clip))


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("name", set(CLIPS) - {"wrong length"})
def test_a_stream_refuses_the_same_clips(tiny_tokenizer, clip, name):
    with pytest.raises(ValueError, match=r"."):
        list(tiny_tokenizer.stream_encode([CLIPS[name][0](clip)]))


@pytest.mark.filterwarnings("ignore:Attribute '.*' is an instance of `nn.Module`")
@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("name", CLIPS)
def test_training_refuses_the_same_clips_before_anything_is_calibrated(continuous, clip, name):
    """A clip of NaN once left NaN in the stems, calibrated for good."""
    module = TokenizerModule(continuous, 1)
    continuous.calibrated.fill_(False)
    before = {name: value.clone() for name, value in continuous.state_dict().items()}
    change, words = CLIPS[name]
    with pytest.raises(ValueError, match=words):
        module.objective(Batch(change(clip), [""]))
    with pytest.raises(ValueError, match=words):
        continuous(change(clip))
    assert all(torch.equal(before[name], x) for name, x in continuous.state_dict().items())


def test_a_single_latent_position_calibrates_nothing(tiny_tokenizer):
    with pytest.raises(ValueError, match="single latent position"):
        tiny_tokenizer.calibrate(torch.zeros(1, 3, 1, 8, 8))


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("name", TOKENS)
def test_tokens_that_do_not_fit_are_refused(tiny_tokenizer, name):
    change, words = TOKENS[name]
    tokens = change(torch.full((1, 2, 4, 4), 199))
    with pytest.raises(ValueError, match=words):
        tiny_tokenizer.decode(tokens)
    with pytest.raises(ValueError, match=r"."):
        list(tiny_tokenizer.stream_decode([tokens]))


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.uint16, torch.int32])
@pytest.mark.parametrize("quantizer", [FSQ([8, 5, 5]), LFQ(7), VQ(200)], ids=["FSQ", "LFQ", "VQ"])
def test_tokens_of_every_integer_type_decode_alike(quantizer, dtype):
    tokenizer = Tokenizer(
        quantizer, channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    ).eval()
    for p in [*tokenizer.parameters(), *tokenizer.quantizer.buffers()]:
        if p.is_floating_point():
            torch.nn.init.normal_(p, std=0.1)
    tokens = torch.randint(quantizer.codebook_size, (1, 2, 4, 4))
    assert torch.equal(tokenizer.decode(tokens.to(dtype)), tokenizer.decode(tokens))


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("name", LATENTS)
def test_latents_that_do_not_fit_are_refused(continuous, name):
    change, words = LATENTS[name]
    latents = change(torch.zeros(1, 3, 2, 4, 4))
    for codec in (LatentCodec(continuous), TiledTokenizer(continuous, 80)):
        with pytest.raises(ValueError, match=words):
            codec.decode(latents)


@pytest.mark.parametrize("change", [lambda one: one, lambda one: TiledTokenizer(one, 80)])
def test_a_continuous_tokenizer_has_no_tokens_and_says_what_it_can(continuous, change):
    tokenizer = change(continuous)
    with pytest.raises(ValueError, match=r"continuous \(KL\).*--task reconstruct, or LatentCodec"):
        encode_file(tokenizer, iter([]), 8.0, "never.tokens")


@pytest.mark.usefixtures("_without_types")
@pytest.mark.parametrize("name", FRAMES)
def test_frames_that_do_not_fit_are_refused(tiny_tokenizer, name):
    frames, words = FRAMES[name]
    with pytest.raises(ValueError, match=words):
        list(encode_video(tiny_tokenizer, iter(frames)))


def test_pixels_just_outside_the_range_by_rounding_pass(tiny_tokenizer, clip):
    tiny_tokenizer.encode(clip * 1.005)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_tokenizer_in_another_precision_is_refused(tiny_tokenizer, clip, tmp_path, dtype):
    tokens = tiny_tokenizer.encode(clip)
    latents = tiny_tokenizer.quantizer.lookup(tokens)
    tiny_tokenizer.to(dtype)
    for refused in (
        lambda: tiny_tokenizer.encode(clip),
        lambda: tiny_tokenizer.encode(clip.to(dtype)),
        lambda: tiny_tokenizer(clip),
        lambda: tiny_tokenizer.decode(tokens),
        lambda: tiny_tokenizer.decode_latents(latents),
        lambda: tiny_tokenizer.calibrate(clip),
        lambda: tiny_tokenizer.fingerprint(),
        lambda: tiny_tokenizer.save_pretrained(tmp_path / "model"),
        lambda: VideoPipeline(tiny_tokenizer, 32, 8.0).save_pretrained(tmp_path / "model"),
    ):
        with pytest.raises(ValueError, match=f"in {dtype}.*keep it in float32 and use autocast"):
            refused()
    assert not (tmp_path / "model").exists()
