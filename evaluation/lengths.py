"""The one rule by which lengths of protocols meet lengths of tokenizers, 1 + s k frames."""

LENGTH_RULE = (
    "A tokenizer of temporal stride s takes 1 + s k frames. Of the context it sees the last "
    "1 + s k frames; what is asked for is the next length 1 + s k that holds all predicted frames, "
    "cut to them; the true context stands in front of the predicted frames. A clip to be "
    "reconstructed is lengthened to 1 + s k by its last frame, and cut. Likelihood is that of the "
    "first 1 + s k frames."
)


def next_length(num_frames: int, stride: int) -> int:
    """Return the smallest 1 + s k that is not below a number of frames."""
    return 1 + -(-(num_frames - 1) // stride) * stride


def last_length(num_frames: int, stride: int) -> int:
    """Return the largest 1 + s k that is not above a number of frames."""
    return 1 + (num_frames - 1) // stride * stride
