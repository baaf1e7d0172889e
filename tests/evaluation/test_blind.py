"""The blind page hides which side is which, and the votes find out."""

import json
import re

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from evaluation import result
from evaluation.blind import REASONS, collect_votes, key_path, sign_test, write_blind_page
from evaluation.protocols import find


@pytest.fixture
def folders(tmp_path):
    """Two results, one of dark clips and one of bright ones."""
    for name, level in (("dark", 20), ("bright", 220)):
        stamp = result.stamp(
            find("bair"), counts={}, hashes={"model": name}, seeds={}, deviations=[], options={}
        )
        result.write(tmp_path / name / "result.json", stamp | {"systems": {}})
        np.save(tmp_path / name / "model.npy", np.full((6, 4, 16, 16, 3), level, dtype=np.uint8))
    return tmp_path / "dark", tmp_path / "bright"


def vote(key, page, winner, reasons):
    """Choose the same model everywhere, as someone who knows the key would."""
    known = json.loads(key.read_text())
    votes = [
        {"pair": int(pair), "side": "left" if left == winner else "right", "reasons": reasons}
        for pair, left in known["left"].items()
    ]
    page.write_text(json.dumps({"page": known["page"], "votes": votes}))
    return page


def test_votes_are_counted_for_the_right_model(folders, tmp_path):
    key = write_blind_page(tmp_path / "blind.html", *folders, seed=3)
    first = vote(key, tmp_path / "a.json", "first", [REASONS[0]])
    second = vote(key, tmp_path / "b.json", "second", [])
    found = collect_votes(key, [first, first, second])
    assert found["people"] == 3
    assert found["first"] == {"result": str(folders[0]), "wins": 12, "reasons": {REASONS[0]: 12}}
    assert found["second"]["wins"] == 6
    assert found["share_of_first"] == pytest.approx(2 / 3)
    assert found["p_value"] == pytest.approx(binomtest(12, 18).pvalue)


def test_the_page_shows_all_pairs_and_does_not_tell(folders, tmp_path):
    key = write_blind_page(tmp_path / "blind.html", *folders, seed=3)
    page = (tmp_path / "blind.html").read_text()
    assert sorted(re.findall(r'data-pair="(\d)"', page)) == list("012345")
    assert page.count("<video") == 12
    assert "dark" not in page.split("</style>")[1]
    assert "first" not in re.sub(r"[A-Za-z0-9+/=]{200,}", "", page.split("<body>")[1])
    sides = set(json.loads(key.read_text())["left"].values())
    assert sides == {"first", "second"}
    assert key == key_path(tmp_path / "blind.html")


def test_votes_of_another_page_and_other_files_are_refused(folders, tmp_path):
    key = write_blind_page(tmp_path / "blind.html", *folders)
    other = write_blind_page(tmp_path / "other.html", *folders, seed=1)
    votes = vote(other, tmp_path / "a.json", "first", [])
    with pytest.raises(ValueError, match="belongs to another page"):
        collect_votes(key, [votes])
    with pytest.raises(ValueError, match=r"blind\.html is no file of this page"):
        collect_votes(tmp_path / "blind.html", [votes])


def test_results_without_clips_or_of_another_protocol_are_refused(folders, tmp_path):
    (folders[0] / "model.npy").unlink()
    with pytest.raises(ValueError, match=r"model\.npy is missing; evaluate a model"):
        write_blind_page(tmp_path / "blind.html", *folders)
    changed = result.read(folders[1])
    changed["protocol"]["num_frames"] = 8
    result.write(folders[1] / "result.json", changed)
    with pytest.raises(ValueError, match="num_frames is 16 in one and 8"):
        write_blind_page(tmp_path / "blind.html", *folders)


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 0), (5, 5), (9, 1), (30, 17)])
def test_the_sign_test_is_scipys(first, second):
    expected = binomtest(first, first + second).pvalue if first + second else 1.0
    assert sign_test(first, second) == pytest.approx(expected)
    assert torch.tensor(sign_test(second, first)).item() == pytest.approx(expected)
