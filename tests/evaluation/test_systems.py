"""What a model is asked for, by the one rule of lengths; a model that counts answers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from evaluation.protocol import Protocol
from evaluation.reference import Unit
from evaluation.systems import BaselineSystem, FileSystem, ModelSystem

BASE = {"name": "p", "task": "predict", "data": "", "size": 16, "num_clips": 2}


class Counter:
    """Goes on by adding 1 a frame, and remembers what it was asked for."""

    size, fps, text = 16, 8.0, None
    prior = decoder = object()
    takes_actions = True
    classes = ()

    def __init__(self, stride):
        self.tokenizer = SimpleNamespace(temporal_stride=stride)
        self.asked = []

    encode = decode = staticmethod(lambda clips: clips)

    def codec(self):
        return self.tokenizer

    def generate(self, prompts=None, num_frames=17, seed=0, context=None, actions=None):
        stride = self.tokenizer.temporal_stride
        assert (num_frames - 1) % stride == 0
        self.asked.append(
            {"frames": num_frames, "seed": seed, "context": context, "actions": actions}
        )
        if context is None:
            return torch.zeros(len(seed), num_frames, 16, 16, 3, dtype=torch.uint8)
        assert (context.shape[1] - 1) % stride == 0
        start = context[:, :1].int()
        steps = torch.arange(num_frames)[None, :, None, None, None]
        # What it makes of the context is not the context: 100 more.
        return (start + steps + 100 * (steps < context.shape[1])).byte()


def counting(num_frames, first=10, actions=None):
    frames = first + torch.arange(num_frames, dtype=torch.uint8)[:, None, None, None]
    return Unit(frames.expand(-1, 16, 16, 3)[None].contiguous(), "", actions)


@pytest.mark.parametrize(
    ("stride", "given", "length", "seen", "asked"),
    [
        (4, 5, 16, 5, 17),
        (4, 1, 16, 1, 17),
        (4, 2, 16, 1, 17),
        (4, 10, 20, 9, 21),
        (1, 5, 16, 5, 16),
    ],
)
def test_the_last_admissible_context_is_continued_and_cut(stride, given, length, seen, asked):
    model = Counter(stride)
    protocol = Protocol(**BASE, num_frames=length, context_frames=given)
    units = [counting(length), counting(length, 60)]
    clips = ModelSystem(model, protocol, seed=0)(units, [0, 1], 0)
    (call,) = model.asked
    assert call["frames"] == asked
    assert call["context"].shape[1] == seen
    assert call["context"][0, -1, 0, 0, 0] == 10 + given - 1
    # The true context in front, the right continuation behind it.
    assert torch.equal(clips, torch.cat([unit.real for unit in units]))


def test_a_sample_draws_from_its_own_seed_whatever_batch_it_is_in():
    protocol = Protocol(**BASE, num_frames=5, context_frames=1, samples=3)
    model = Counter(4)
    system = ModelSystem(model, protocol, seed=100)
    system([counting(5)] * 2, [4, 7], 2)
    system([counting(5)], [7], 0)
    assert [call["seed"] for call in model.asked] == [[100 + 14, 100 + 23], [100 + 21]]


def test_options_reach_the_model():
    protocol, told = Protocol(**BASE, num_frames=5, context_frames=1), {}
    model = Counter(4)
    model.generate = lambda **given: (
        told.update(given)
        or Counter(4).generate(
            context=given["context"], num_frames=given["num_frames"], seed=given["seed"]
        )
    )
    options = {"temperature": 0.5, "decoder": "diffusion", "decoder_steps": 8}
    ModelSystem(model, protocol, 0, options)([counting(5)], [0], 0)
    assert {name: told[name] for name in options} == options


def test_clips_from_nothing_are_cut_to_the_protocols_length():
    protocol = Protocol(**{**BASE, "task": "generate"}, num_frames=16)
    model = Counter(4)
    clips = ModelSystem(model, protocol, seed=0)([counting(16)] * 2, [0, 1], 0)
    assert clips.shape == (2, 16, 16, 16, 3)
    assert [call["frames"] for call in model.asked] == [17, 17]


def test_actions_are_passed_on_and_missing_ones_are_named():
    protocol = Protocol(**BASE, num_frames=5, context_frames=1, condition="actions")
    model = Counter(4)
    system = ModelSystem(model, protocol, seed=0)
    actions = torch.rand(5, 4)
    system([counting(5, actions=actions)], [0], 0)
    assert torch.equal(model.asked[0]["actions"], actions[None])
    # Of two given frames the last counts, and six are not 1 + 4 k: the next length is asked for.
    protocol = Protocol(**BASE, num_frames=6, context_frames=2, condition="actions")
    actions = torch.rand(6, 4)
    ModelSystem(model, protocol, seed=0)([counting(6, actions=actions)], [0], 0)
    assert torch.equal(model.asked[1]["actions"][0, :5], actions[1:])
    with pytest.raises(ValueError, match=r"a video has no actions; give shards that have them"):
        system([counting(5)], [0], 0)


def test_a_tokenizer_alone_cannot_predict(tiny_tokenizer):
    model = Counter(4)
    model.prior = None
    with pytest.raises(
        ValueError, match="p needs a prior, but this folder holds a tokenizer alone"
    ):
        ModelSystem(model, Protocol(**BASE, num_frames=5, context_frames=1), seed=0)


def test_reconstruction_lengthens_by_the_last_frame(pipe):
    protocol = Protocol(**{**BASE, "task": "reconstruct"}, num_frames=7)
    generator = torch.Generator().manual_seed(0)
    clip = torch.randint(256, (1, 7, 32, 32, 3), generator=generator).byte()
    longer = torch.cat([clip, clip[:, -1:].expand(-1, 2, -1, -1, -1)], dim=1)
    system = ModelSystem(pipe, protocol, seed=0)
    assert torch.equal(system.tokens(clip), system.tokens(longer))
    assert torch.equal(system.reconstruct(clip), system.reconstruct(longer)[:, :7])


def test_clips_of_others_are_read_sample_by_sample(tmp_path):
    protocol = Protocol(**BASE, num_frames=5, context_frames=1, samples=2)
    clips = np.arange(4, dtype=np.uint8)[:, None, None, None, None] + np.zeros((4, 5, 16, 16, 3))
    np.save(tmp_path / "clips.npy", clips.astype(np.uint8))
    system = FileSystem(tmp_path / "clips.npy", protocol, 2, 16)
    answers = [
        int(system([], [unit], sample)[0, 0, 0, 0, 0]) for unit in (0, 1) for sample in (0, 1)
    ]
    assert answers == [0, 1, 2, 3]
    for units, size in ((3, 16), (2, 32)):
        expected = (
            rf"uint8 of shape \(4, 5, 16, 16, 3\), but p needs uint8 {2 * units} x 5 x {size}"
        )
        with pytest.raises(ValueError, match=expected):
            FileSystem(tmp_path / "clips.npy", protocol, units, size)
    np.save(tmp_path / "grey.npy", np.zeros((4, 5, 16, 16), np.uint8))
    with pytest.raises(ValueError, match="16 x 16 x 3"):
        FileSystem(tmp_path / "grey.npy", protocol, 2, 16)


def test_a_baseline_keeps_the_context():
    protocol = Protocol(**BASE, num_frames=5, context_frames=2)
    system = BaselineSystem(
        lambda context, new: context[:, -1:].expand(-1, new, -1, -1, -1), protocol
    )
    clips = system([counting(5)], [0], 0)
    assert clips[0, :, 0, 0, 0].tolist() == [10, 11, 11, 11, 11]
