"""A page of thumbnails and histograms, one file, on which a person chooses thresholds."""

import base64
import html
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from data.container import VideoError
from data.scores import duplicates
from data.shard_folder import ShardFolder

_BARS, _PICTURES, _SIDE = 30, 12, 96
_STYLE = """
body { font: 14px sans-serif; margin: 2em; } section { margin-bottom: 2em; }
.bars { display: flex; align-items: flex-end; height: 80px; width: 620px; }
.bars div { flex: 1; background: #47a; margin-right: 1px; }
figure { display: inline-block; margin: 2px; } figcaption { font-size: 11px; max-width: 96px; }
"""


def page(source: ShardFolder) -> str:
    """Show, for each score, its histogram and the clips from the lowest to the highest value."""
    scores = source.reader.scores()
    names = [str(source.stored(index)) for index in range(len(source))]
    known = [index for index, name in enumerate(names) if "error" not in scores[name]]
    rows = [scores[names[index]] for index in known]
    same = duplicates([str(row["hash"]) for row in rows])
    rows = [row | {"duplicate": int(again)} for row, again in zip(rows, same, strict=True)]
    names = [name for row in rows[:1] for name in row]
    numbers = [k for k in names if all(isinstance(row.get(k), int | float) for row in rows)]
    sections = [_section(source, name, known, rows) for name in numbers]
    return (
        f"<!doctype html><meta charset=utf-8><title>clips</title><style>{_STYLE}</style>"
        f"<h1>{len(rows)} clips of {html.escape(source.path)}</h1>{''.join(sections)}"
    )


def _section(source: ShardFolder, name: str, indices: list[int], rows: list[dict[str, Any]]) -> str:
    values = np.array([row[name] for row in rows], dtype=np.float64)
    counts, edges = np.histogram(values, bins=_BARS)
    bars = "".join(
        f'<div style="height:{100 * count / counts.max():.1f}%" '
        f'title="{low:.4g} to {high:.4g}: {count}"></div>'
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    )
    order = np.argsort(values, kind="stable")
    places = np.unique(np.linspace(0, len(order) - 1, _PICTURES).round().astype(int))
    pictures = "".join(_figure(source, indices[order[k]], float(values[order[k]])) for k in places)
    return (
        f"<section><h2>{html.escape(name)}</h2><div class=bars>{bars}</div>"
        f"<p>{edges[0]:.4g} to {edges[-1]:.4g}, median {np.median(values):.4g}</p>"
        f"{pictures}</section>"
    )


def _figure(source: ShardFolder, index: int, value: float) -> str:
    length = source.length(index)
    try:
        frame = source.read(index, 1, (length // 2 + 0.5) / length).frames[0].numpy()
    except VideoError:  # scored once, and no longer there
        return ""
    picture = Image.fromarray(frame)
    picture.thumbnail((_SIDE, _SIDE))
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    meta = source.stored(index).entry.meta
    said = html.escape(" / ".join(map(str, meta.get("captions", []))), quote=True)
    shown = html.escape(str(meta.get("source", "")).encode(errors="replace").decode(), quote=True)
    return (
        f'<figure title="{said}"><img src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{value:.4g}<br>{shown}</figcaption></figure>"
    )
