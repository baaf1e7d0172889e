"""An evaluation as one HTML page that needs nothing beside it: figures, targets, pictures."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from pathlib import Path

_MEDIA = {".gif": "image/gif", ".jpg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2027; --faint: #667080; --line: #e3e6eb;
  --page: #ffffff; --pass: #19734a; --miss: #b3372b; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8eaee; --faint: #98a1b0; --line: #2c313a;
  --page: #13161b; --pass: #58c08f; --miss: #f0897d; } }
body { margin: 0 auto; max-width: 60rem; padding: 3rem 1.5rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; font-weight: 650; margin: 0 0 2rem; overflow-wrap: anywhere; }
h2 { font-size: .8rem; font-weight: 650; letter-spacing: .08em; text-transform: uppercase;
  color: var(--faint); margin: 2.5rem 0 .5rem; }
table { border-collapse: collapse; width: 100%; table-layout: fixed;
  font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 400; font-size: .85rem; }
th, td { padding: .4rem .75rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { padding-left: 0; width: 46%; text-align: left;
  overflow-wrap: anywhere; }
td:nth-child(2) { font-weight: 600; }
.pass { color: var(--pass); } .miss { color: var(--miss); }
figure { margin: 1.5rem 0 2.5rem; } figcaption { color: var(--faint); margin-bottom: .5rem; }
img, video { max-width: 100%; border-radius: 6px; }
li { margin: .3rem 0; }
"""


def write_report(
    path: str | Path,
    title: str,
    figures: Mapping[str, float | int | str],
    targets: Mapping[str, float | int] | None = None,
    pictures: Sequence[tuple[str, str | Path]] = (),
    notes: Sequence[str] = (),
    lower_is_better: Sequence[str] = (),
) -> None:
    """Write a self-contained page.

    Args:
        path: Where to write the HTML.
        title: The heading.
        figures: Numbers and words by name; names are grouped by what precedes the first dot.
        targets: The value a figure should reach; it passes if it is at least as good.
        pictures: A caption and a .png, .jpg, .gif or .mp4 file each, embedded in the page.
        notes: Sentences to stand below, such as the protocol.
        lower_is_better: Figures whose target is an upper limit.
    """
    targets = targets or {}
    for name in [*targets, *lower_is_better]:
        if name not in figures:
            raise ValueError(f"{name!r} has a target, but figures has no such name; add it")
    parts = [f"<h1>{escape(title)}</h1>"]
    order = list(dict.fromkeys(map(_group, figures)))  # groups as they first appear
    groups = groupby(sorted(figures, key=lambda name: order.index(_group(name))), key=_group)
    parts += [
        _table(group, list(names), figures, targets, lower_is_better) for group, names in groups
    ]
    if pictures:
        parts += [
            "<h2>Pictures</h2>",
            *(picture(caption, Path(file)) for caption, file in pictures),
        ]
    if notes:
        items = "\n".join(f"<li>{escape(note)}</li>" for note in notes)
        parts.append(f"<h2>Notes</h2>\n<ul>\n{items}\n</ul>")
    write_page(path, title, parts)


def write_page(path: str | Path, title: str, parts: Sequence[str], style: str = "") -> None:
    """Write parts of a page, which are HTML already, as a page that needs nothing beside it."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
    )
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(head + "\n".join(parts) + "\n</body>\n</html>\n", encoding="utf-8")


def _group(name: str) -> str:
    return name.partition(".")[0] if "." in name else ""


def _table(
    group: str,
    names: Sequence[str],
    figures: Mapping[str, float | int | str],
    targets: Mapping[str, float | int],
    lower_is_better: Sequence[str],
) -> str:
    with_targets = any(name in targets for name in names)
    head = "<th></th><th>value</th>" + ("<th>target</th><th></th>" if with_targets else "")
    lines = [f"<h2>{escape(group or 'Figures')}</h2>", f"<table>\n<tr>{head}</tr>"]
    for name in names:
        cells = f"<td>{escape(name.removeprefix(group + '.'))}</td><td>{number(figures[name])}</td>"
        if with_targets:
            cells += _verdict(figures[name], targets.get(name), name in lower_is_better)
        lines.append(f"<tr>{cells}</tr>")
    return "\n".join([*lines, "</table>"])


def _verdict(figure: float | int | str, target: float | int | None, lower: bool) -> str:
    if target is None:
        return "<td></td><td></td>"
    sign, value = ("&le;", target) if lower else ("&ge;", target)
    passed = not isinstance(figure, str) and (figure <= target if lower else figure >= target)
    mark = (
        '<td class="pass">&#10003; pass</td>' if passed else '<td class="miss">&#10007; miss</td>'
    )
    return f"<td>{sign} {number(value)}</td>{mark}"


def number(figure: float | int | str) -> str:
    """Write a figure with four digits that matter."""
    if isinstance(figure, str):
        return escape(figure)
    if isinstance(figure, int) or (figure.is_integer() and abs(figure) < 1e15):
        return f"{int(figure):,}"
    if not math.isfinite(figure) or not 1e-3 <= abs(figure) < 1e6:
        return f"{figure:.3g}"
    return f"{figure:,.{max(0, 3 - max(0, math.floor(math.log10(abs(figure)))))}f}"


def picture(caption: str, file: Path) -> str:
    """Return a figure with a picture or a video inside the page."""
    kind = _MEDIA.get(file.suffix.lower())
    if kind is None:
        raise ValueError(f"picture {file.name} is none of {', '.join(_MEDIA)}; convert it")
    data = f"data:{kind};base64,{b64encode(file.read_bytes()).decode()}"
    media = (
        f'<video src="{data}" autoplay loop muted playsinline controls></video>'
        if kind.startswith("video")
        else f'<img src="{data}" alt="{escape(caption)}">'
    )
    return f"<figure><figcaption>{escape(caption)}</figcaption>{media}</figure>"
