"""Every protocol from its benchmark's own files, in miniature, to result.json and the page."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

import evaluate
from data.episodes import Episode, write_episodes
from data.shapes import Shapes
from evaluation import result
from evaluation.protocols import PROTOCOLS
from lm import TokenDiffusionPrior, Transformer
from pipeline import VideoPipeline

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*leave the covariance without full rank"),
    pytest.mark.filterwarnings("ignore:videos are"),
    pytest.mark.filterwarnings("ignore:prompt .* has characters"),
]
QUICK = (
    "bair-debiased",
    "kinetics600",
    "ucf101",
    "moving-mnist",
    "moving-mnist-stochastic",
    "kth",
    "reconstruction-davis",
    "moving-digits",
)
CLIPS = 2


def clips(num_frames):
    return [Shapes(CLIPS, "val").read(i, num_frames) for i in range(CLIPS)]


def write_avi(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4" if path.suffix == ".mp4" else "avi") as out:
        stream = out.add_stream("mpeg4" if path.suffix == ".avi" else "libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames.numpy():
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        out.mux(stream.encode(None))


def bair(folder, write_bair):
    (folder / "softmotion30_44k/test").mkdir(parents=True)
    write_bair(folder / "softmotion30_44k/test/traj_0_to_1.tfrecords", [0, 1], 30)


def kinetics600(folder, write_bair):
    lines = ["label,youtube_id,time_start,time_end,split"]
    for number, sample in enumerate(clips(18)):
        write_avi(folder / f"val/abc{number}_000001_000011.mp4", sample.frames)
        lines.append(f"yoga,abc{number},1,11,val")
    lines.append("yoga,gone,1,11,val")
    (folder / "annotations").mkdir()
    (folder / "annotations/val.csv").write_text("\n".join(lines) + "\n")


def ucf101(folder, write_bair):
    (folder / "ucfTrainTestlist").mkdir()
    names = [f"{label}/v_{label}_g01_c01.avi" for label in ("Archery", "YoYo")]
    for name, sample in zip(names, clips(18), strict=True):
        write_avi(folder / "UCF-101" / name, sample.frames)
    lines = [f"{name} {number}\n" for number, name in enumerate(names, 1)]
    (folder / "ucfTrainTestlist/trainlist01.txt").write_text("".join(lines))


def kth(folder, write_bair):
    for person, sample in zip((21, 25), clips(42), strict=True):
        write_avi(folder / f"boxing/person{person}_boxing_d1_uncomp.avi", sample.frames)


def moving_mnist(folder, write_bair):
    frames = np.stack([sample.frames[..., 0].numpy() for sample in clips(20)], axis=1)
    np.save(folder / "mnist_test_seq.npy", frames)


def mnist(folder, write_bair):
    pictures = np.stack([sample.frames[0, :28, :28, 0].numpy() for sample in clips(1)])
    header = b"".join(n.to_bytes(4) for n in (0x0803, *pictures.shape))
    (folder / "t10k-images-idx3-ubyte").write_bytes(header + pictures.tobytes())


def davis(folder, write_bair):
    for number, sample in enumerate(clips(17)):
        sequence = folder / f"DAVIS/JPEGImages/480p/sequence{number}"
        sequence.mkdir(parents=True)
        for k, picture in enumerate(sample.frames.numpy()):
            Image.fromarray(picture).save(sequence / f"{k:05d}.jpg")


def videos(folder, write_bair):
    for number, sample in enumerate(clips(18)):
        write_avi(folder / f"{number}.mp4", sample.frames)


def nothing(folder, write_bair):
    folder.rmdir()


LAYOUTS = {
    "bair": bair,
    "kinetics600": kinetics600,
    "kth": kth,
    "mnist": mnist,
    "moving-mnist": moving_mnist,
    "ucf101-train": ucf101,
    "davis": davis,
}


def evaluated(folder, name, model, data, monkeypatch):
    """Evaluate with two clips, samples and windows at most; everything else as it is."""
    full = PROTOCOLS[name]
    few = replace(full, samples=min(2, full.samples), windows=min(2, full.windows))
    small = few if full.built_in else replace(few, size=32)
    monkeypatch.setitem(PROTOCOLS, name, small)
    monkeypatch.setattr("evaluation.experiment.TRAINING_CLIPS", 3)
    model.save_pretrained(folder / "model")
    options = [f"--clips={CLIPS}", "--batch-size=1", "--replicates=20", "--out", f"{folder}/out"]
    evaluate.main([name, str(folder / "model"), *data, *options])
    return small, result.read(folder / "out")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.soak)
        for name, protocol in PROTOCOLS.items()
        if protocol.condition != "actions"
    ],
)
def test_a_protocol_runs_from_the_files_of_its_benchmark(
    name, pipe, tmp_path, monkeypatch, write_bair
):
    full, data = PROTOCOLS[name], tmp_path / "data"
    data.mkdir()
    make = nothing if full.built_in else LAYOUTS.get(full.layout, videos)
    make(data, write_bair)
    given = [str(data)] if data.is_dir() else []
    protocol, found = evaluated(tmp_path, name, pipe, given, monkeypatch)
    kind = "drawn" if full.built_in else "as given out" if full.layout else "folder"
    model = found["systems"]["model"]["figures"]
    assert found["options"]["videos"] == kind
    if protocol.layout == "kinetics600":
        assert "1 of the 3 videos of val.csv are missing" in found["options"]["notes"]
    assert found["counts"]["samples"] == CLIPS * protocol.samples
    assert found["counts"]["real"] == CLIPS * protocol.windows
    assert model["frechet_rand3d-seed0"]["value"] > 0
    assert "fvd" not in model
    if protocol.task == "predict":
        assert {"copy_last", "linear", "mean_frame", "real"} < {*found["systems"]}
        predicted = protocol.num_frames - protocol.context_frames
        assert len(found["systems"]["model"]["curves"]["psnr_frame"]["value"]) == predicted
    if protocol.task == "predict" and protocol.size == pipe.size:
        assert model["bits_per_token"]["value"] > 0
    if protocol.task == "reconstruct":
        assert 0 < model["code_usage"]["value"] < 1
    assert ("nearest_train" in found["systems"]) == (kind == "drawn" and protocol.task == "predict")
    assert ("mse_sum" in model) == (protocol.grey and protocol.task == "predict")
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000


def test_a_prior_that_knows_actions_is_given_those_of_the_robot(
    new_pipe, tiny_tokenizer, tmp_path, monkeypatch, write_bair
):
    model = new_pipe(tiny_tokenizer, ["generate"], action_ranges=[[-5.0, 5.0]] * 4)
    (tmp_path / "data").mkdir()
    bair(tmp_path / "data", write_bair)
    data = [str(tmp_path / "data")]
    _, found = evaluated(tmp_path, "bair-actions", model, data, monkeypatch)
    assert found["options"]["told"] == {"model": "actions"}
    assert "bits_per_token" not in found["systems"]["model"]["figures"]  # of no actions
    assert found["options"]["videos"] == "as given out"
    assert found["systems"]["model"]["figures"]["psnr_frame"]["value"] > 0


def test_a_prior_that_knows_classes_is_given_those_of_the_benchmark(
    new_pipe, tiny_tokenizer, tmp_path, monkeypatch, write_bair
):
    model = new_pipe(tiny_tokenizer, ["generate"], num_classes=2)
    model.classes = ["Archery", "YoYo"]
    (tmp_path / "data").mkdir()
    ucf101(tmp_path / "data", write_bair)
    _, found = evaluated(tmp_path, "ucf101", model, [str(tmp_path / "data")], monkeypatch)
    assert found["options"]["told"] == {"model": "classes"}


@pytest.mark.parametrize("name", ["moving-digits", "reconstruction-davis"])
def test_a_model_of_continuous_latents_is_measured_too(
    name, continuous, tmp_path, monkeypatch, write_bair
):
    prior = TokenDiffusionPrior(
        Transformer(width=32, depth=1, num_heads=2), 3, [5, 4, 4], head_width=16, head_depth=1
    )
    model, data = VideoPipeline(continuous, 32, 8.0, prior), tmp_path / "data"
    data.mkdir()
    LAYOUTS.get(PROTOCOLS[name].layout, nothing)(data, write_bair)
    given = [str(data)] if data.is_dir() else []
    _, found = evaluated(tmp_path, name, model, given, monkeypatch)
    figures = found["systems"]["model"]["figures"]
    assert figures["psnr_frame"]["value"] > 0
    assert not {"bits_per_token", "pseudo_bits_per_token", "code_usage"} & figures.keys()


class Driven:
    """A model that goes on from what it is given by adding the action of each frame."""

    takes_actions = True

    def __init__(self, model):
        names = ("condition", "codec", "encode", "decode")
        self.__dict__.update(vars(model), **{name: getattr(model, name) for name in names})

    def generate(self, num_frames, seed, context, actions):
        assert actions.shape[:2] == (len(context), num_frames)
        frames = [*context.int().unbind(1)]
        for row in actions[:, len(frames) :, 0].int().unbind(1):
            frames.append(frames[-1] + row[:, None, None, None])
        return torch.stack(frames, dim=1).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("context", [5, 7])  # of 7 the model sees the last 5
def test_roll_outs_give_each_frame_its_own_action(pipe, tmp_path, monkeypatch, context):
    rng = np.random.default_rng(0)
    actions = np.concatenate([np.zeros((2, 1, 1)), rng.integers(-9, 10, (2, 17, 1))], axis=1)
    levels = (128 + actions.cumsum(axis=1)).clip(0, 255)
    frames = np.broadcast_to(levels[..., None, None], (2, 18, 32, 32, 3)).astype(np.uint8)

    def episodes(first, last):
        for k in range(first, last):
            yield Episode(str(k), frames[k], actions[k].astype(np.float32))

    write_episodes(tmp_path / "data", episodes, 2, fps=8.0, kind="test")
    changed = replace(PROTOCOLS["rollouts"], context_frames=context)
    monkeypatch.setitem(PROTOCOLS, "rollouts", changed)
    load = evaluate.VideoPipeline.from_pretrained
    driven = lambda folder, device: Driven(load(folder, device))
    monkeypatch.setattr(evaluate.VideoPipeline, "from_pretrained", driven)
    data = [str(tmp_path / "data"), "--split=all"]  # the held-out tenth of two would be one
    _, found = evaluated(tmp_path, "rollouts", pipe, data, monkeypatch)
    assert found["protocol"]["split"] == "all"
    assert found["options"]["videos"] == "shards"
    assert found["options"]["told"] == {"model": "actions"}
    assert found["systems"]["model"]["figures"]["psnr_frame"]["value"] == 100
    assert found["systems"]["copy_last"]["figures"]["psnr_frame"]["value"] < 40
