"""The command line from end to end, on a tiny model, and what it refuses."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import evaluate
from data.shapes import Shapes
from data.video import VideoWriter
from evaluation import result
from evaluation.protocols import PROTOCOLS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*leave the covariance without full rank"),
    pytest.mark.filterwarnings("ignore:videos are"),
    pytest.mark.filterwarnings("ignore:prompt .* has characters"),
]


@pytest.fixture
def folder(pipe, tmp_path):
    """A model folder and one of six clips, as lossless arrays with captions and classes."""
    pipe.save_pretrained(tmp_path / "model")
    source = Shapes(6, "val")
    for i in range(6):
        sample = source.read(i, 42)
        place = tmp_path / "clips" / ("left" if i % 2 else "right")
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / f"{i}.npy", sample.frames.numpy())
        (place / f"{i}.txt").write_text(sample.caption)
    return tmp_path


def arguments(folder, protocol, *options, clips=2, out="out", model="model"):
    given = [protocol, str(folder / model), *options, "--out", str(folder / out)]
    return [*given, "--clips", str(clips), "--batch-size", "1", "--replicates", "20"]


def run(folder, *given, **options):
    evaluate.main(arguments(folder, *given, **options))
    return result.read(folder / options.get("out", "out"))


def shrink(monkeypatch, name):
    """Two samples and windows at most, of 32 pixels: everything else as it is."""
    full = PROTOCOLS[name]
    few = replace(full, samples=min(2, full.samples), windows=min(2, full.windows), size=32)
    monkeypatch.setitem(PROTOCOLS, name, few)
    return few


@pytest.mark.soak
def test_two_processes_give_the_result_of_one(folder):
    """By torchrun; counts and hashes exactly, figures to 1e-6."""
    for count in (1, 2):
        given = arguments(
            folder, "captioned-shapes", str(folder / "clips"), clips=4, out=f"{count}"
        )
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
        command += ["--master-port=29611", "evaluate.py", *given]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", *filter(None, sys.path)])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (result.read(folder / name) for name in "12")
    for key in ("protocol", "counts", "hashes", "seeds"):
        assert one[key] == two[key]
    for system, values in one["systems"].items():
        for name, figure in values["figures"].items():
            expected = [figure[key] for key in ("value", "low", "high")]
            other = two["systems"][system]["figures"][name]
            assert [other[key] for key in ("value", "low", "high")] == pytest.approx(
                expected, rel=1e-6
            )


def test_clips_of_another_model_are_measured_and_compared(folder, monkeypatch, capsys):
    """The truth, given as some model's clips, is perfect; its negative is not, and both differ."""
    protocol = shrink(monkeypatch, "captioned-shapes")
    clips = np.stack([np.load(p)[:17, ::2, ::2] for p in sorted(folder.rglob("clips/*/*.npy"))[:2]])
    np.save(folder / "truth.npy", clips)
    np.save(folder / "negative.npy", 255 - clips)
    (folder / "small").mkdir()
    for i, clip in enumerate(clips):
        np.save(folder / "small" / f"{i}.npy", clip)
    for name in ("truth", "negative"):
        run(folder, protocol.name, str(folder / "small"), out=name, model=f"{name}.npy")
    figures = result.read(folder / "truth")["systems"]["model"]["figures"]
    assert figures["psnr_frame"]["value"] == 100
    assert figures["frechet_rand3d-seed0"]["value"] == pytest.approx(0, abs=1e-6)
    evaluate.main(["compare", str(folder / "truth"), str(folder / "negative")])
    assert "psnr_frame" in capsys.readouterr().out
    evaluate.main(
        ["blind", str(folder / "truth"), str(folder / "negative"), "--out", str(folder / "b.html")]
    )
    assert (folder / "b.key.json").is_file()
    changed = result.read(folder / "negative")
    changed["counts"]["units"] = 3
    result.write(folder / "negative" / "result.json", changed)
    with pytest.raises(ValueError, match="counts: units is 2 in one and 3 in the other"):
        evaluate.main(["compare", str(folder / "truth"), str(folder / "negative")])


def test_what_cannot_be_measured_is_refused_at_once(folder, monkeypatch):
    shrink(monkeypatch, "captioned-shapes")
    clips = str(folder / "clips")
    with VideoWriter(folder / "lossy.mp4", 8.0) as writer:
        writer.write(Shapes(1, "val").read(0, 17).frames)
    refused = [
        (dict(model="lossy.mp4"), "captioned-shapes", "never computed from a lossy video file"),
        (dict(model="missing.npy"), "captioned-shapes", "is no file; give a model folder"),
        (dict(clips=9), "bair", "bair needs 9 videos, but there are 6"),
        (dict(), "bair-actions", "gives actions, but this model takes none"),
    ]
    for options, protocol, message in refused:
        with pytest.raises(ValueError, match=message):
            run(folder, protocol, clips, **options)
    with pytest.raises(ValueError, match=r"none\.pt is no file; give the local path"):
        run(folder, "captioned-shapes", clips, "--i3d", "none.pt")
    given = ["captioned-shapes-generate", "none", clips, "--clips", "2", "--out", str(folder / "o")]
    with pytest.raises(ValueError, match="captioned-shapes-generate has no baseline"):
        evaluate.main(given)
    assert not (folder / "out").exists()


def test_the_self_test_passes(capsys):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(["--self-test"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert text.count("pass") >= 7
    assert "MISS" not in text
    assert "golden values of FVD were not checked" in text


def test_surprise_is_written(folder):
    with VideoWriter(folder / "v.mp4", 8.0) as writer:
        writer.write(Shapes(1, "val").read(0, 21).frames)
    evaluate.main(
        ["surprise", str(folder / "model"), str(folder / "v.mp4"), "--out", str(folder / "s")]
    )
    assert len((folder / "s" / "surprise.csv").read_text().splitlines()) == 1 + 6
