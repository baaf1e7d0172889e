"""Windows cover a stream once, however it comes."""

import pytest
import torch

from diffusion.windows import cut

STRIDE = 4


def chunks(sizes):
    """Latent frames that hold their number, with frames that hold theirs."""
    first = 0
    for size in sizes:
        tokens = torch.arange(first, first + size).view(1, size, 1, 1)
        low = STRIDE * (first - 1) + 1 if first else 0
        frames = torch.arange(low, STRIDE * (first + size - 1) + 1).float()
        yield tokens, frames.view(1, 1, -1, 1, 1).expand(1, 3, -1, 1, 1)
        first += size


@pytest.mark.parametrize("total", [1, 2, 3, 4, 5, 11])
@pytest.mark.parametrize(("size", "overlap"), [(2, 1), (3, 1), (3, 2), (5, 2)])
def test_every_latent_frame_is_new_once_and_has_its_frames(total, size, overlap):
    new = []
    for window in cut(chunks([total]), size, overlap, STRIDE):
        latents = window.tokens.flatten().tolist()
        assert len(latents) == min(size, total)
        assert window.first == latents[0]
        assert window.num_known == 0 or window.num_known >= overlap
        frames = window.base[0, 0].flatten().tolist()
        assert frames == list(range(STRIDE * latents[0], STRIDE * latents[-1] + 1))
        assert latents[: window.num_known] == new[len(new) - window.num_known :]
        new += latents[window.num_known :]
    assert new == list(range(total))


@pytest.mark.parametrize("sizes", [[1] * 11, [2, 9], [10, 1], [3, 4, 4], [1, 5, 5]])
def test_chunks_of_any_size_give_the_same_windows(sizes):
    ours = list(cut(chunks(sizes), 4, 2, STRIDE))
    whole = list(cut(chunks([11]), 4, 2, STRIDE))
    assert len(ours) == len(whole)
    for a, b in zip(ours, whole, strict=True):
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.base, b.base)
        assert a.num_known == b.num_known


def test_a_window_comes_as_soon_as_it_is_full():
    read = 0

    def counted():
        nonlocal read
        for chunk in chunks([1] * 50):
            read += 1
            yield chunk

    windows = cut(counted(), 4, 1, STRIDE)
    read_at = [(next(windows), read)[1] for _ in range(5)]
    assert read_at == [4, 7, 10, 13, 16]


def test_frames_known_before_the_stream_are_not_new():
    (first, *_) = cut(chunks([7]), 3, 1, STRIDE, num_known=2)
    assert first.num_known == 1
    assert first.tokens.flatten().tolist() == [1, 2, 3]


def test_windows_of_images_cover_no_video():
    assert len(list(cut(chunks([1]), 1, 1, STRIDE))) == 1
    with pytest.raises(ValueError, match="for images"):
        list(cut(chunks([2]), 1, 1, STRIDE))
