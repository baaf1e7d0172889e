"""Results that differ in what decides a number are not put side by side."""

import json
from copy import deepcopy

import pytest

from evaluation import result
from evaluation.protocols import find


@pytest.fixture
def found():
    stamp = result.stamp(
        find("bair"),
        counts={"units": 256, "samples": 25_600},
        hashes={"model": "a", "data": "b", "video": "c"},
        seeds={"sampling": 0},
        deviations=[],
        options={},
    )
    return stamp | {"systems": {"model": {}}}


def test_two_models_of_one_protocol_may_stand_side_by_side(found):
    other = deepcopy(found)
    other["hashes"]["model"] = "another"
    other["seeds"]["sampling"] = 1
    assert result.why_not_comparable(found, other) == []


@pytest.mark.parametrize(
    ("group", "name", "value", "reason"),
    [
        (
            "protocol",
            "context_frames",
            2,
            "protocol: context_frames is 1 in one and 2 in the other",
        ),
        ("protocol", "covariance", "population", "covariance is 'unbiased' in one"),
        ("counts", "samples", 256, "counts: samples is 25600 in one and 256"),
        ("hashes", "video", "z", r"video: another file or data \(c and z\)"),
        ("hashes", "data", "z", r"data: another file or data"),
    ],
)
def test_a_difference_that_counts_is_refused_with_the_reason(found, group, name, value, reason):
    other = deepcopy(found)
    other[group][name] = value
    with pytest.raises(ValueError, match=reason):
        result.require_comparable(found, other)
    assert len(result.why_not_comparable(found, other)) == 1


def test_a_result_says_where_it_comes_from(found):
    assert found["protocol"]["name"] == "bair"
    assert "1 + s k" in found["length_rule"]
    assert {"python", "torch", "torchmetrics"} <= {*found["versions"]}
    assert len(found["commit"].removesuffix("-changed")) in (0, 40)


def test_what_is_not_finite_is_written_as_null(found, tmp_path):
    found["systems"]["model"] = {
        "figures": {"x": {"value": float("nan"), "low": [1.0, float("inf")]}}
    }
    result.write(tmp_path / "a" / "result.json", found)
    figures = result.read(tmp_path / "a")["systems"]["model"]["figures"]
    assert figures == {"x": {"value": None, "low": [1.0, None]}}


def test_other_files_are_named(tmp_path):
    (tmp_path / "result.json").write_text(json.dumps({"psnr": 3}))
    with pytest.raises(ValueError, match=r"result\.json is no result of evaluate\.py \(it lacks"):
        result.read(tmp_path)
    with pytest.raises(ValueError, match=r"none is no result"):
        result.read(tmp_path / "none")
