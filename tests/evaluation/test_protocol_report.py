"""The page of a result: published numbers only where the protocol is the same."""

import pytest
import torch

from evaluation import result
from evaluation.protocol_report import _best, _ranked, write_result_page
from evaluation.protocols import find
from evaluation.run import REAL


def figure(value, low=None, high=None, up=False):
    return {"value": value, "low": low, "high": high, "higher_is_better": up}


@pytest.fixture
def found():
    scores = {"psnr_frame": [float(k) for k in range(8)]}
    psnr = figure(3.5, 3.0, 4.0, up=True)
    stamp = result.stamp(
        find("bair"),
        counts={"units": 8, "real": 8, "samples": 8, "size": 16},
        hashes={"model": "<b>"},
        seeds={},
        deviations=[],
        options={},
    )
    model = {"figures": {"fvd": figure(70.0, 65.0, 75.0), "psnr_frame": psnr}, "scores": scores}
    return stamp | {"systems": {"model": model | {"curves": {}}}}


@pytest.fixture
def clips():
    return {name: torch.zeros(8, 4, 16, 16, 3, dtype=torch.uint8) for name in ("model", REAL)}


def page(found, clips, tmp_path):
    write_result_page(tmp_path / "report.html", found, clips, 8.0)
    return (tmp_path / "report.html").read_text()


def test_published_numbers_stand_in_order_around_ours(found, clips, tmp_path):
    text = page(found, clips, tmp_path).split("<h2>Published")[1].split("<h2>Samples")[0]
    order = ["MAGVIT-L", "this model", "MAGVIT-B", "MCVD", "VideoGPT", "LVT"]
    places = [text.index(name) for name in order]
    assert places == sorted(places)


def test_a_deviation_or_another_extractor_stands_alone(found, clips, tmp_path):
    found["deviations"] = ["8 units instead of 256"]
    text = page(found, clips, tmp_path)
    assert "8 units instead of 256" in text
    assert "VideoGPT</td>" not in text
    found["deviations"] = []
    figures = found["systems"]["model"]["figures"]
    figures["frechet_rand3d-seed0"] = figures.pop("fvd")
    assert "FVD was not measured with I3D" in page(found, clips, tmp_path)


def test_clips_are_shown_from_best_to_worst(found, clips, tmp_path):
    text = page(found, clips, tmp_path)
    places = [text.index(f">{word}, by psnr_frame") for word in ("Best", "Middle", "Worst")]
    assert places == sorted(places)
    assert _ranked(found["systems"]["model"], 8) == ("psnr_frame", [7, 6, 5, 4, 3, 2, 1, 0])
    assert text.count("data:image/gif;base64") == 3
    assert "<b>" not in text.split("<h2>Stamp")[1]


def test_what_overlaps_the_best_is_not_called_worse():
    found = {
        "a": figure(10.0, 9.0, 11.0),
        "b": figure(10.5, 9.5, 12.0),
        "c": figure(20.0, 18.0, 22.0),
    }
    assert _best(found) == {"a", "b"}
    assert _best({**found, REAL: figure(1.0, 1.0, 1.0)}) == set()
    assert _best({"a": figure(3.0, up=True), "b": figure(4.0, up=True)}) == {"b"}
