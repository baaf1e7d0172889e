"""Plots put values where they belong."""

import re
from xml.etree import ElementTree

import pytest

from evaluation.plots import Curve, _ticks, plot


def points(text, tag):
    found = re.search(rf'<{tag} points="([^"]*)"', text)
    return [tuple(map(float, pair.split(","))) for pair in found[1].split()]


def test_lines_and_bands_follow_the_values():
    curve = Curve([1.0, 3.0, 2.0], [0.5, 2.0, 1.5], [1.5, 4.0, 2.5])
    text = plot({"a <b>": curve}, 5, "psnr", "frame")
    line, band = points(text, "polyline"), points(text, "polygon")
    assert [x for x, _ in line] == pytest.approx([56, 302, 548])
    # Down is up: the highest value has the smallest coordinate, and the scale is linear.
    (_, y1), (_, y3), (_, y2) = line
    assert y3 < y2 < y1
    assert y2 == pytest.approx((y1 + y3) / 2, abs=0.11)
    assert band[:3] + band[3:][::-1] == sorted(band, key=lambda p: (band.index(p) >= 3, p[0]))
    assert min(y for _, y in band) < y3
    assert "a &lt;b&gt;" in text
    ElementTree.fromstring(text.replace("<br>", ""))


def test_gaps_and_single_points_are_drawn():
    text = plot({"a": Curve([None, 2.0, None], [None] * 3, [None] * 3)}, 0, "x", "frame")
    assert "<circle" in text
    assert "nan" not in text


def test_ticks_are_round_and_inside():
    for low, high in ((0.0, 1.0), (18.3, 41.7), (-0.004, 0.0001)):
        ticks = _ticks(low, high)
        assert 3 <= len(ticks) <= 7
        assert low <= ticks[0]
        assert ticks[-1] <= high
