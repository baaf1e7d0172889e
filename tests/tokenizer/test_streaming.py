"""A stream, in chunks of any size, is one pass in little memory."""

import subprocess
import sys
import weakref
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer import FSQ, KL, LFQ, VQ, Tokenizer, codec_of
from tokenizer.streaming import StreamCache, regroup

CHUNKS = [[1] * 17, [17], [16, 1], [2, 3, 5, 7], [3, 3, 3, 3, 3, 2], [1, 4, 12]]


MODELS = {
    "FSQ": (FSQ([8, 5, 5]), {}),
    "LFQ, attention in space and time": (
        LFQ(6),
        {"channels": [16, 64], "spatial_attention": True, "temporal_window": 2},
    ),
    "VQ, full convolutions": (VQ(64, dim=4), {"factorized": False}),
    "KL": (KL(4), {}),
    "three levels, window of 3": (
        FSQ([8, 5, 5]),
        {
            "patch": [1, 2],
            "channels": [8, 16, 64],
            "strides": [[2, 2], [2, 2]],
            "temporal_window": 3,
        },
    ),
}


@pytest.fixture(scope="module", params=MODELS)
def tokenizer(request) -> Tokenizer:
    """A small tokenizer of a kind, with every parameter away from its start."""
    quantizer, options = MODELS[request.param]
    options = {"channels": [16, 32], "strides": [[2, 2]], **options}
    depths = [1] * len(options["channels"])
    torch.manual_seed(0)
    tokenizer = Tokenizer(quantizer, **options, encoder_depths=depths, decoder_depths=depths)
    for p in tokenizer.parameters():
        p.data.add_(0.05 * torch.randn_like(p))
    tokenizer.calibrate(torch.rand(2, 3, 5, 32, 32) * 2 - 1)
    if isinstance(quantizer, VQ):
        quantizer.codebook.normal_()
    return tokenizer.eval()


def near_a_boundary(tokenizer: Tokenizer, clip: torch.Tensor) -> torch.Tensor:
    """Where moving every latent by 1e-5, up or down, can give another token."""
    latents = tokenizer.encoder(clip)
    tokens = tokenizer.quantizer(latents).tokens
    near = torch.zeros_like(tokens, dtype=torch.bool)
    for signs in product([-1e-5, 1e-5], repeat=latents.shape[1]):
        moved = latents + torch.tensor(signs)[:, None, None, None]
        near |= tokenizer.quantizer(moved).tokens != tokens
    return near


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_latents_of_a_stream_equal_one_pass(tokenizer, clip, chunks):
    cache = StreamCache()
    pieces = regroup(clip.split(chunks, dim=2), 4, pad=False, max_pixels=8 * 32 * 32)
    latents = torch.cat([tokenizer.encoder(piece, cache) for piece in pieces], dim=2)
    torch.testing.assert_close(latents, tokenizer.encoder(clip), atol=1e-5, rtol=0)


@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_tokens_of_a_stream_equal_one_pass(tokenizer, clip, chunks):
    codec = codec_of(tokenizer)
    coded = torch.cat(list(codec.stream_encode(clip.split(chunks, dim=2))), dim=-3)
    if tokenizer.is_continuous:
        torch.testing.assert_close(coded, codec.encode(clip), atol=1e-5, rtol=0)
        return
    flipped = coded != codec.encode(clip)
    assert not (flipped & ~near_a_boundary(tokenizer, clip)).any()
    assert flipped.sum() <= 1


@pytest.mark.parametrize("chunks", [[1, 1, 1, 1, 1], [5], [2, 3], [1, 4]], ids=str)
def test_frames_of_a_stream_equal_one_pass(tokenizer, clip, chunks):
    codec = codec_of(tokenizer)
    coded = codec.encode(clip)
    frames = torch.cat(list(codec.stream_decode(coded.split(chunks, dim=-3))), dim=2)
    torch.testing.assert_close(frames, codec.decode(coded), atol=1e-5, rtol=0)


def test_a_long_chunk_is_decoded_in_parts(tokenizer, clip, monkeypatch):
    monkeypatch.setattr("tokenizer.streaming.MAX_PIXELS", 8 * 32 * 32)
    codec = codec_of(tokenizer)
    parts = [part.shape[2] for part in codec.stream_decode([codec.encode(clip)])]
    assert parts == [5, 8, 4]


def test_a_stream_is_not_cut_off_by_its_batch(tiny_tokenizer):
    clips = torch.rand(3, 3, 9, 16, 24, generator=torch.Generator().manual_seed(2)) * 2 - 1
    tokens = torch.cat(list(tiny_tokenizer.stream_encode(clips.split(2, dim=2))), dim=1)
    assert (tokens == tiny_tokenizer.encode(clips)).float().mean() > 0.99


def test_tokens_and_frames_come_as_soon_as_they_can(tiny_tokenizer, clip):
    given_frames, progress = 0, []

    def camera():
        nonlocal given_frames
        for frame in clip.split(1, dim=2):
            given_frames += 1
            yield frame

    tokens = tiny_tokenizer.stream_encode(camera())
    for frames in tiny_tokenizer.stream_decode(tokens):
        progress.append((given_frames, frames.shape[2]))
    assert progress == [(1, 1), (5, 4), (9, 4), (13, 4), (17, 4)]


@settings(deadline=None)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12),
    st.sampled_from([1, 2, 4, 8]),
    st.integers(1, 20),
)
def test_regrouping_keeps_every_frame_in_order(sizes, stride, max_frames):
    frames = torch.arange(sum(sizes)).float()[None, None, :, None, None]
    pieces = list(
        regroup(iter(frames.split(sizes, dim=2)), stride, pad=True, max_pixels=max_frames)
    )
    lengths = [piece.shape[2] for piece in pieces]
    padding = -(sum(sizes) - 1) % stride
    joined = torch.cat(pieces, dim=2).flatten()
    assert torch.equal(joined[: sum(sizes)], frames.flatten())
    assert (joined[sum(sizes) :] == joined[sum(sizes) - 1]).all()
    assert len(joined) == sum(sizes) + padding
    assert lengths[0] % stride == 1 % stride
    assert all(length % stride == 0 for length in lengths[1:])
    assert max(lengths) <= max(max_frames, stride) + 1


def test_a_long_chunk_is_not_copied_where_nothing_waits():
    chunks = torch.rand(1, 3, 9, 8, 8), torch.rand(1, 3, 32, 8, 8)
    pieces = list(regroup(iter(chunks), 4, pad=False, max_pixels=8 * 8 * 8))
    places = {piece.untyped_storage().data_ptr() for piece in pieces}
    assert places == {chunk.untyped_storage().data_ptr() for chunk in chunks}


def test_a_camera_may_fill_the_same_buffer_again(tiny_tokenizer, clip):
    buffer = torch.empty_like(clip[:, :, :3])

    def camera():
        for part in clip[:, :, :15].split(3, dim=2):
            buffer.copy_(part)
            yield buffer

    tokens = torch.cat(list(tiny_tokenizer.stream_encode(camera(), pad=True)), dim=1)
    apart = tiny_tokenizer.stream_encode(clip[:, :, :15].split(3, dim=2), pad=True)
    assert torch.equal(tokens, torch.cat(list(apart), dim=1))


def test_a_stream_needs_no_gradient_and_leaves_that_of_others_alone(tiny_tokenizer, clip):
    stream = tiny_tokenizer.stream_decode(tiny_tokenizer.stream_encode(clip.split(1, dim=2)))
    assert not next(stream).requires_grad
    assert torch.is_grad_enabled()
    tiny_tokenizer(clip).clip.mean().backward()


def test_an_odd_length_is_refused_or_padded(tiny_tokenizer, clip):
    parts = clip[:, :, :15].split(4, dim=2)
    with pytest.raises(ValueError, match=r"after 15 frames.*leave 2 out, add 2, or.*pad=True"):
        list(tiny_tokenizer.stream_encode(iter(parts)))
    tokens = torch.cat(list(tiny_tokenizer.stream_encode(iter(parts), pad=True)), dim=1)
    padded = torch.cat([clip[:, :, :15], clip[:, :, 14:15], clip[:, :, 14:15]], dim=2)
    assert (tokens == tiny_tokenizer.encode(padded)).float().mean() > 0.99


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda parts: [], "no chunk"),
        (lambda parts: [parts[0][:, :, :0]], "chunk 0.*at least 1"),
        (lambda parts: [parts[0], parts[1][:, :, :0]], "chunk 1.*at least 1"),
        (lambda parts: [parts[0], parts[1][..., :24]], "chunk 1.*one type and size"),
        (lambda parts: [parts[0], parts[1].expand(2, -1, -1, -1, -1)], "chunk 1"),
        (lambda parts: [parts[0], parts[1] * torch.nan], "finite"),
        (lambda parts: [parts[0], (parts[1] * 100).to(torch.uint8)], "chunk 1.*one type"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused(tiny_tokenizer, clip, change, words):
    parts = change(clip.split([5, 12], dim=2))
    with pytest.raises(ValueError, match=words):
        list(tiny_tokenizer.stream_encode(iter(parts)))


def test_a_grid_that_changes_is_refused(tiny_tokenizer):
    parts = [torch.zeros(1, 2, 4, 4).long(), torch.zeros(1, 2, 4, 5).long()]
    with pytest.raises(ValueError, match=r"chunk 1.*one type and size"):
        list(tiny_tokenizer.stream_decode(iter(parts)))
    with pytest.raises(ValueError, match="no chunk"):
        list(tiny_tokenizer.stream_decode(iter([])))


def test_the_cache_keeps_a_few_frames_whatever_the_length(tokenizer, clip):
    codec, encoding, decoding, held = codec_of(tokenizer), StreamCache(), StreamCache(), []
    camera = (clip[:, :, :4] for _ in range(9))
    for piece in regroup(camera, 4, pad=True, max_pixels=8 * 32 * 32):
        with torch.no_grad():
            codec.decode(codec.encode(piece, encoding), decoding)
        states = [*encoding.values(), *decoding.values()]
        held.append(sum(state.untyped_storage().nbytes() for state in states))
        assert held[-1] == sum(state.nbytes for state in states)  # no view of a whole chunk
    assert len(set(held[4:])) == 1


def test_chunks_are_let_go(tiny_tokenizer, clip):
    alive: list = []

    def camera():
        for _ in range(12):
            chunk = clip[:, :, :4].clone()
            alive.append(weakref.ref(chunk))
            yield chunk
            del chunk

    most = 0
    for _ in tiny_tokenizer.stream_encode(camera(), pad=True):
        most = max(most, sum(ref() is not None for ref in alive))
    assert most <= 2


SCRIPT = """
import torch
from benchmarks.tokenizer import resident
from tokenizer import FSQ, Tokenizer
tokenizer = Tokenizer(FSQ([8, 5, 5]), None, [16, 32], [[2, 2]], [1, 1], [1, 1])
peaks = []
for frames in (32, 640):
    camera = (torch.zeros(1, 3, 1, 64, 64) for _ in range(frames))
    for clip in tokenizer.stream_decode(tokenizer.stream_encode(camera, pad=True)):
        pass
    peaks.append(resident())
print(*peaks)
"""


def test_a_long_stream_needs_no_more_memory_than_a_short_one():
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, check=True)
    short, long = map(float, result.stdout.split())
    assert long - short < 0.008  # GB; the pixels of 608 more frames alone are 0.03
