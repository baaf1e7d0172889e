"""Curves over frames as SVG, with their intervals as bands."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

from evaluation.report import number

# Told apart by people who see colours differently: Okabe and Ito 2008.
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8a8a")
_WIDTH, _HEIGHT = 560, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 12, 12, 34


class Curve(NamedTuple):
    """A value for each place, and its interval; None where there is none."""

    value: Sequence[float | None]
    low: Sequence[float | None]
    high: Sequence[float | None]


def plot(curves: Mapping[str, Curve], first: int, label: str, across: str) -> str:
    """Return a plot with a line and a band for each curve.

    Args:
        curves: By name; all of one length.
        first: Number of the first place.
        label: What is plotted.
        across: What the places are.
    """
    ends = [
        v for c in curves.values() for part in c for v in part if v is not None and math.isfinite(v)
    ]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    margin = 0.05 * (high - low) or 0.5
    frame = _Frame(low - margin, high + margin, first, max(len(c.value) for c in curves.values()))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">',
        *frame.grid(across),
    ]
    for color, curve in zip(_cycle(len(curves)), curves.values(), strict=True):
        parts += [frame.band(curve, color), frame.line(curve.value, color)]
    names = "".join(
        f'<span><i style="background:{color}"></i>{escape(name)}</span>'
        for color, name in zip(_cycle(len(curves)), curves, strict=True)
    )
    legend = f'<div class="legend">{names}</div>'
    return (
        f"<figure><figcaption>{escape(label)}</figcaption>{''.join(parts)}</svg>{legend}</figure>"
    )


class _Frame:
    """From places and values to points of the picture."""

    def __init__(self, low: float, high: float, first: int, count: int) -> None:
        self.low, self.high, self.first, self.count = low, high, first, count

    def point(self, place: int, value: float) -> str:
        inside = _WIDTH - _LEFT - _RIGHT
        x = _LEFT + inside * (place / (self.count - 1) if self.count > 1 else 0.5)
        y = _TOP + (_HEIGHT - _TOP - _BOTTOM) * (self.high - value) / (self.high - self.low)
        return f"{x:.1f},{y:.1f}"

    def grid(self, across: str) -> list[str]:
        parts = []
        for value in _ticks(self.low, self.high):
            y = float(self.point(0, value).split(",")[1])
            parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y}" y2="{y}"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" class="end">{number(value)}</text>')
        every = max(1, self.count // 8)
        for place in range(0, self.count, every):
            x = self.point(place, self.low).split(",")[0]
            text = f"{self.first + place}"
            parts.append(f'<text x="{x}" y="{_HEIGHT - 18}" class="mid">{text}</text>')
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        parts.append(f'<text x="{middle}" y="{_HEIGHT - 3}" class="mid">{escape(across)}</text>')
        return parts

    def line(self, values: Sequence[float | None], color: str) -> str:
        points = [
            self.point(i, v) for i, v in enumerate(values) if v is not None and math.isfinite(v)
        ]
        if len(points) == 1:
            x, y = points[0].split(",")
            return f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"/>'
        return f'<polyline points="{" ".join(points)}" stroke="{color}"/>'

    def band(self, curve: Curve, color: str) -> str:
        places = [
            (i, low, high)
            for i, (low, high) in enumerate(zip(curve.low, curve.high, strict=True))
            if low is not None and high is not None and math.isfinite(low) and math.isfinite(high)
        ]
        there = [self.point(i, high) for i, _, high in places]
        back = [self.point(i, low) for i, low, _ in reversed(places)]
        return f'<polygon points="{" ".join(there + back)}" fill="{color}"/>'


def _cycle(count: int) -> list[str]:
    return [_COLORS[i % len(_COLORS)] for i in range(count)]


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two ends."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= rough)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


STYLE = """
svg { width: 100%; height: auto; font: 11px system-ui, sans-serif; }
svg line { stroke: var(--line); } svg text { fill: var(--faint); }
svg .end { text-anchor: end; } svg .mid { text-anchor: middle; }
svg polyline { fill: none; stroke-width: 2; } svg polygon { opacity: .16; }
.legend { font-size: .85rem; color: var(--faint); display: flex; flex-wrap: wrap; gap: 0 1.2rem; }
.legend i { display: inline-block; width: .8em; height: .8em; border-radius: 2px;
  margin-right: .4em; }
"""
