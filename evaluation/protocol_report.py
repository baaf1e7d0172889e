"""The page of a result: figures beside published ones, curves over frames, clips to look at."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from evaluation.contact_sheet import animated_grid
from evaluation.plots import STYLE, Curve, plot
from evaluation.published import PUBLISHED
from evaluation.report import number, picture, write_page
from evaluation.run import REAL, kept_units

_STYLE = (
    STYLE
    + """
body { max-width: 72rem; }
table.wide { table-layout: auto; }
table.wide td, table.wide th { padding: .35rem .5rem; font-weight: 400; white-space: nowrap; }
table.wide td:first-child { width: auto; }
table.wide .best { font-weight: 650; }
.span { color: var(--faint); font-size: .8rem; font-weight: 400; }
td .span { display: block; }
td:first-child .span { display: inline; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(26rem, 1fr)); gap: 0 2rem; }
.scroll { overflow-x: auto; }
.warn { border-left: 3px solid var(--miss); padding-left: 1rem; }
pre { font-size: .8rem; overflow-x: auto; color: var(--faint); }
"""
)
Clips = Mapping[str, UInt8[Tensor, "K T H W 3"]]
_SHOWN = 3


def write_result_page(path: Path, result: dict[str, Any], clips: Clips, fps: float) -> None:
    """Write report.html and the pictures it shows.

    Args:
        path: Where to write the page; pictures go beside it and into it.
        result: What `evaluate.py` found.
        clips: Kept clips of the model and of the truth (`run.kept_units`), by system.
        fps: How fast to show them.
    """
    protocol = result["protocol"]
    parts = [
        f"<h1>{escape(protocol['name'])}</h1>",
        f"<p>{escape(_sentence(result))}</p>",
        *_warnings(result),
        _figures(result["systems"]),
        *_published(result),
        *_curves(result["systems"], protocol["context_frames"]),
        *_samples(path.parent, result, clips, fps),
        _stamp(result),
    ]
    write_page(path, protocol["name"], parts, _STYLE)


def _sentence(result: dict[str, Any]) -> str:
    protocol, counts = result["protocol"], result["counts"]
    given = protocol["context_frames"]
    what = {
        "predict": f"{given} frames given, {protocol['num_frames'] - given} predicted",
        "generate": f"{protocol['num_frames']} frames generated",
        "reconstruct": f"{protocol['num_frames']} frames passed through the tokenizer",
    }[protocol["task"]]
    return (
        f"{what[0].upper()}{what[1:]} at {counts['size']} x {counts['size']} pixels. "
        f"{counts['samples']:,} clips are compared with {counts['real']:,} real ones of "
        f"{protocol['data']}. Below each figure: 95 % of draws of the clips; in bold, "
        "what the best is not set apart from."
    )


def _warnings(result: dict[str, Any]) -> list[str]:
    if not result["deviations"]:
        return []
    items = "".join(f"<li>{escape(reason)}</li>" for reason in result["deviations"])
    return [
        '<div class="warn"><p>Not the protocol as published, so no published number stands '
        f"beside it:</p><ul>{items}</ul></div>"
    ]


def _figures(systems: dict[str, Any]) -> str:
    names = list(dict.fromkeys(f for s in systems.values() for f in s["figures"]))
    head = "".join(f"<th>{escape(system)}</th>" for system in systems)
    lines = [f'<div class="scroll"><table class="wide">\n<tr><th></th>{head}</tr>']
    for name in names:
        found = {s: values["figures"].get(name) for s, values in systems.items()}
        best = _best(found)
        cells = "".join(_cell(figure, system in best) for system, figure in found.items())
        arrow = _arrow(next(f for f in found.values() if f))
        lines.append(f"<tr><td>{escape(name)} {arrow}</td>{cells}</tr>")
    return "\n".join([*lines, "</table></div>"])


def _arrow(figure: dict[str, Any]) -> str:
    up = figure["higher_is_better"]
    return (
        '<span class="span" title="higher is better">&uarr;</span>'
        if up
        else ('<span class="span" title="lower is better">&darr;</span>')
    )


def _best(found: Mapping[str, dict[str, Any] | None]) -> set[str]:
    """Return the systems that nothing sets apart from the best: their intervals overlap its own.

    Where the truth has a value, it is the yardstick, and nobody is best.
    """
    known = {s: f for s, f in found.items() if f and f["value"] is not None}
    if REAL in known or len(known) < 2:
        return set()
    sign = 1 if next(iter(known.values()))["higher_is_better"] else -1
    top = max(known.values(), key=lambda figure: sign * figure["value"])
    if top["low"] is None:
        return {s for s, f in known.items() if f["value"] == top["value"]}
    return {s for s, f in known.items() if f["low"] <= top["high"] and top["low"] <= f["high"]}


def _cell(figure: dict[str, Any] | None, best: bool) -> str:
    if figure is None or figure["value"] is None:
        return "<td></td>"
    text = f"{figure['value']:.4g}"
    if figure["low"] is not None:
        text += f'<span class="span">{figure["low"]:.3g} to {figure["high"]:.3g}</span>'
    return f"<td{' class=best' if best else ''}>{text}</td>"


def _published(result: dict[str, Any]) -> list[str]:
    rows = PUBLISHED.get(result["protocol"]["name"], [])
    figures = result["systems"].get("model", {}).get("figures", {})
    rows = [row for row in rows if row.figure in figures and not result["deviations"]]
    if not rows:
        reason = (
            "none with this protocol is known here"
            if result["protocol"]["name"] not in PUBLISHED
            else "the protocol was not followed as published, or FVD was not measured with I3D"
        )
        return [f"<h2>Published</h2>\n<p>No published number is shown: {reason}.</p>"]
    lines = [(row.value, row.method, row.source, "") for row in rows] + [
        (figures[rows[0].figure]["value"], "this model", "", ' class="best"')
    ]
    body = "".join(
        f"<tr><td{mark}>{escape(method)}</td><td>{number(value)}</td><td>{escape(source)}</td></tr>"
        for value, method, source, mark in sorted(lines, key=lambda line: line[0])
    )
    head = f"<tr><th></th><th>{escape(rows[0].figure)}</th><th>source</th></tr>"
    return ["<h2>Published</h2>", f"<table>{head}{body}</table>"]


def _curves(systems: dict[str, Any], first: int) -> list[str]:
    names = list(dict.fromkeys(c for s in systems.values() for c in s["curves"]))
    parts = ['<h2>Over frames</h2><div class="plots">'] if names else []
    for name in names:
        curves = {
            system: Curve(*(values["curves"][name][key] for key in ("value", "low", "high")))
            for system, values in systems.items()
            if name in values["curves"]
        }
        parts.append(plot(curves, first, name, "frame"))
    return [*parts, "</div>"] if names else []


def _samples(folder: Path, result: dict[str, Any], clips: Clips, fps: float) -> list[str]:
    """Show the best, the middle and the worst of the kept clips beside the truth."""
    system = result["systems"].get("model")
    if system is None or "model" not in clips:
        return []
    name, order = _ranked(system, result["counts"]["units"])
    middle = (len(order) - _SHOWN) // 2
    groups = {
        "Best": order[:_SHOWN],
        "Middle": order[max(0, middle) : max(0, middle) + _SHOWN],
        "Worst": order[-_SHOWN:],
    }
    parts = ["<h2>Samples</h2>"]
    units = kept_units(result["counts"]["units"])
    for title, places in groups.items():
        shown, labels = [], []
        for place in places:
            shown += [clips[REAL][place], clips["model"][place]]
            score = system["scores"][name][units[place]]
            labels += [f"truth of {units[place]}", f"model: {name} {number(score)}"]
        file = folder / f"{title.lower()}.gif"
        scale = max(1, 128 // shown[0].shape[1])
        animated_grid(shown, labels, file, min(fps, 50.0), columns=2 * _SHOWN, scale=scale)
        parts.append(picture(f"{title}, by {name}; truth at the left of each", file))
    return parts


def _ranked(system: dict[str, Any], num_units: int) -> tuple[str, Sequence[int]]:
    """Return the figure by which clips are ranked, and the kept ones from best to worst."""
    scores: dict[str, list[float]] = system["scores"]
    name = "psnr_frame" if "psnr_frame" in scores else next(iter(scores))
    kept = torch.tensor([scores[name][unit] for unit in kept_units(num_units)])
    up = system["figures"][name]["higher_is_better"]
    return name, kept.argsort(descending=up, stable=True).tolist()


def _stamp(result: dict[str, Any]) -> str:
    stamp = {key: value for key, value in result.items() if key != "systems"}
    text = escape(json.dumps(stamp, indent=2))
    summary = "<summary>What these numbers mean</summary>"
    return f"<h2>Stamp</h2>\n<details>{summary}<pre>{text}</pre></details>"
