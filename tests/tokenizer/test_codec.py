"""Videos of any size and length through the tokenizer, a few frames at a time."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data.video import iterate_frames, to_model_range, to_uint8
from tokenizer import TiledTokenizer
from tokenizer.codec import decode_file, encode_file, encode_video, reconstruct_video
from tokenizer.token_file import TokenReader

CLIPS = Path(__file__).parents[2].parent / "shared/clips"


def video(num_frames: int, height: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(256, size=(num_frames, height, width, 3), dtype=np.uint8)


def padded(frames: np.ndarray, num_frames: int, height: int, width: int) -> torch.Tensor:
    """Repeat the last frame, row and column."""
    rows, columns = height - frames.shape[1], width - frames.shape[2]
    margin = [(0, num_frames - len(frames)), (0, rows), (0, columns), (0, 0)]
    return to_model_range(torch.from_numpy(np.pad(frames, margin, mode="edge"))[None])


@pytest.mark.parametrize("num_frames", [1, 2, 5, 18])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (30, 41), (12, 11)])
def test_a_file_decodes_to_what_reconstruction_shows(
    tiny_tokenizer, tmp_path, num_frames, height, width
):
    frames, path = video(num_frames, height, width), tmp_path / "clip.tokens"
    info = encode_file(tiny_tokenizer, iter(frames), 12.5, path)
    decoded = torch.cat(list(decode_file(tiny_tokenizer, TokenReader(path))))
    pairs = list(reconstruct_video(tiny_tokenizer, iter(frames)))
    truth, clip = (torch.cat(part) for part in zip(*pairs, strict=True))
    assert (info.height, info.width, info.fps) == (height, width, 12.5)
    assert np.array_equal(truth.numpy(), frames)
    assert torch.equal(decoded, clip)
    assert decoded.shape == frames.shape


def test_padding_is_a_copy_of_the_edge_and_is_cropped_again(tiny_tokenizer):
    frames = video(7, 30, 41)
    whole = padded(frames, 9, 32, 48)
    tokens = torch.cat(list(encode_video(tiny_tokenizer, iter(frames))), dim=1)
    assert (tokens == tiny_tokenizer.encode(whole)).float().mean() > 0.99
    clip = torch.cat([clip for _, clip in reconstruct_video(tiny_tokenizer, iter(frames))])
    expected = to_uint8(tiny_tokenizer.decode(tokens))[0, :7, :30, :41]
    assert (clip.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("tile", [None, 80])
def test_latents_reconstruct_as_in_one_pass(continuous, tile):
    frames = video(7, 90, 85)
    tokenizer = continuous if tile is None else TiledTokenizer(continuous, tile)
    pairs = list(reconstruct_video(tokenizer, iter(frames)))
    truth, clip = (torch.cat(part) for part in zip(*pairs, strict=True))
    whole = continuous(padded(frames, 9, 96, 88)).clip
    assert np.array_equal(truth.numpy(), frames)
    assert (clip.int() - to_uint8(whole)[0, :7, :90, :85].int()).abs().max() <= 1


def test_tiles_write_the_same_file(tiny_tokenizer, tmp_path):
    """But for tokens at a boundary, of which this clip has none."""
    frames, tiled = video(5, 120, 90), TiledTokenizer(tiny_tokenizer, 80)
    for name, tokenizer in (("whole", tiny_tokenizer), ("tiled", tiled)):
        encode_file(tokenizer, iter(frames), 8.0, tmp_path / name)
    whole, tiles = (list(TokenReader(tmp_path / name)) for name in ("whole", "tiled"))
    flipped = torch.cat(whole, dim=1) != torch.cat(tiles, dim=1)
    assert flipped.float().mean() < 1e-3
    clips = [
        torch.cat(list(decode_file(t, TokenReader(tmp_path / "whole"))))
        for t in (tiny_tokenizer, tiled)
    ]
    assert (clips[0].int() - clips[1].int()).abs().max() <= 1


def test_another_tokenizer_is_refused_by_both_names(tiny_tokenizer, tmp_path):
    path = tmp_path / "clip.tokens"
    encode_file(tiny_tokenizer, iter(video(1, 16, 16)), 8.0, path)
    before = tiny_tokenizer.fingerprint()
    tiny_tokenizer.decoder.conv_in.weight.data += 1  # a better decoder still reads old files
    list(decode_file(tiny_tokenizer, TokenReader(path)))
    tiny_tokenizer.encoder.conv_in.weight.data += 1
    with pytest.raises(ValueError, match=f"{before}.*{tiny_tokenizer.fingerprint()}"):
        list(decode_file(tiny_tokenizer, TokenReader(path)))


def test_frames_that_fail_half_way_leave_no_file(tiny_tokenizer, tmp_path):
    def camera():
        yield from video(20, 16, 16)
        raise ValueError("camera lost")

    with pytest.raises(ValueError, match="camera lost"):
        encode_file(tiny_tokenizer, camera(), 8.0, tmp_path / "clip.tokens")
    with pytest.raises(ValueError, match="no frame"):
        encode_file(tiny_tokenizer, iter([]), 8.0, tmp_path / "clip.tokens")
    assert list(tmp_path.iterdir()) == []


def test_no_more_than_a_few_frames_wait(tiny_tokenizer):
    taken: list[np.ndarray] = []

    def camera():
        for frame in video(100, 16, 16):
            taken.append(frame)
            yield frame

    shown = 0
    for truth, _ in reconstruct_video(tiny_tokenizer, camera()):
        assert len(taken) - shown <= 40
        shown += len(truth)
    assert shown == 100


@pytest.mark.skipif(not CLIPS.is_dir(), reason="real clips are not here")
@pytest.mark.parametrize("name", ["torchcodec_nasa_13013", "mdn_stream_of_water"])
def test_a_real_video_keeps_its_size_length_and_pictures(tiny_tokenizer, tmp_path, name):
    frames = list(islice(iterate_frames(CLIPS / f"{name}.mp4"), 19))
    info = encode_file(tiny_tokenizer, iter(frames), 25.0, tmp_path / "clip.tokens")
    decoded = torch.cat(list(decode_file(tiny_tokenizer, TokenReader(tmp_path / "clip.tokens"))))
    pairs = list(reconstruct_video(tiny_tokenizer, iter(frames)))
    assert decoded.shape == (19, info.height, info.width, 3)
    assert torch.equal(decoded, torch.cat([clip for _, clip in pairs]))
    raw = 19 * info.height * info.width * 3
    assert (tmp_path / "clip.tokens").stat().st_size < raw / 100
