"""Two models side by side for people, who do not know which is which and say why they choose.

The reasons are those of JUICE: Emu Video, Girdhar et al. 2023, arXiv 2311.10709.
"""

import hashlib
import json
import math
import tempfile
from base64 import b64encode
from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from data.video import write_video
from evaluation import result
from evaluation.report import write_page

REASONS = (
    "sharper pixels",
    "smoother motion",
    "recognizable objects",
    "steadier frames",
    "more motion",
    "fits the beginning or the words",
)
_FPS = 8.0

_STYLE = """
body { max-width: 52rem; }
.pair { display: none; } .pair.now { display: block; }
.sides { display: flex; gap: 1.5rem; }
.sides figure { flex: 1; margin: .5rem 0; }
video { width: 100%; image-rendering: pixelated; }
label { display: inline-block; margin: .2rem 1.2rem .2rem 0; }
button { font: inherit; padding: .5rem 1.2rem; border-radius: 6px; border: 1px solid var(--line);
  background: none; color: inherit; cursor: pointer; }
button.chosen { background: var(--ink); color: var(--page); }
button:disabled { opacity: .4; cursor: default; }
"""

_SCRIPT = """
const pairs = [...document.querySelectorAll('.pair')], votes = [];
let place = 0, choice = null;
function show() {
  pairs.forEach((pair, k) => pair.classList.toggle('now', k === place));
  document.getElementById('place').textContent =
    place < pairs.length ? `${place + 1} of ${pairs.length}` : 'Thank you.';
  document.getElementById('panel').hidden = place >= pairs.length;
  document.getElementById('save').hidden = votes.length === 0;
  document.querySelectorAll('video').forEach(v => { v.currentTime = 0; });
  choose(null);
  document.querySelectorAll('input').forEach(box => { box.checked = false; });
}
function choose(side) {
  choice = side;
  document.querySelectorAll('[data-side]').forEach(
    b => b.classList.toggle('chosen', b.dataset.side === side));
  document.getElementById('next').disabled = side === null;
}
document.querySelectorAll('[data-side]').forEach(
  b => { b.onclick = () => choose(b.dataset.side); });
document.getElementById('next').onclick = () => {
  const reasons = [...document.querySelectorAll('input:checked')].map(box => box.value);
  votes.push({pair: Number(pairs[place].dataset.pair), side: choice, reasons: reasons});
  place += 1; show();
};
document.getElementById('save').onclick = () => {
  const text = JSON.stringify({page: PAGE, votes: votes}, null, 2);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
  link.download = 'votes.json'; link.click();
};
show();
"""


def write_blind_page(out: Path, first: Path, second: Path, seed: int = 0) -> Path:
    """Write a page of pairs, and beside it the key that says which side is which.

    Args:
        out: The page; the key gets the suffix .key.json. Do not show it to those who choose.
        first: Folder of a result of `evaluate.py`.
        second: Another of the same protocol and clips.
        seed: Draws order and sides.

    Raises:
        ValueError: The results must not stand side by side, or hold no clips.
    """
    result.require_comparable(result.read(first), result.read(second))
    clips = [_kept(folder) for folder in (first, second)]
    rng = np.random.default_rng(seed)
    order, swapped = rng.permutation(len(clips[0])), rng.random(len(clips[0])) < 0.5
    shown = [
        (
            int(unit),
            *((clips[1][unit], clips[0][unit]) if swap else (clips[0][unit], clips[1][unit])),
        )
        for unit, swap in zip(order, swapped, strict=True)
    ]
    left = {int(u): "second" if s else "first" for u, s in zip(order, swapped, strict=True)}
    page = hashlib.sha256(json.dumps([str(first), str(second), seed, left]).encode()).hexdigest()
    result.write(
        key_path(out),
        {"page": page[:16], "first": str(first), "second": str(second), "left": left},
    )
    write_page(out, "Which clip is better?", [*_parts(shown, page[:16])], _STYLE)
    return key_path(out)


def key_path(page: Path) -> Path:
    """Return where the key of a page lies."""
    return page.with_suffix(".key.json")


def collect_votes(key: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Count the votes of several people.

    Returns:
        How often each model won, with the reasons given for it, the share of the first among
        decided votes, and the chance of so uneven a count if people tossed coins (two-sided sign
        test).

    Raises:
        ValueError: A file is damaged or belongs to another page.
    """
    known = _read(key, {"page", "left", "first", "second"})
    wins, reasons = Counter(), {"first": Counter(), "second": Counter()}
    for file in files:
        voted = _read(file, {"page", "votes"})
        if voted["page"] != known["page"]:
            raise ValueError(f"{file} belongs to another page than {key}; count them apart")
        for vote in voted["votes"]:
            left = known["left"][str(vote["pair"])]
            right = "second" if left == "first" else "first"
            winner = {"left": left, "right": right}.get(vote["side"], "tie")
            wins[winner] += 1
            if winner != "tie":
                reasons[winner].update(vote["reasons"])
    decided = wins["first"] + wins["second"]
    return {
        "people": len(files),
        **{
            side: {"result": known[side], "wins": wins[side], "reasons": dict(reasons[side])}
            for side in ("first", "second")
        },
        "ties": wins["tie"],
        "share_of_first": wins["first"] / decided if decided else None,
        "p_value": sign_test(wins["first"], wins["second"]),
    }


def sign_test(first: int, second: int) -> float:
    """Return the two-sided chance of a count at least so uneven among fair coins."""
    total, most = first + second, max(first, second)
    tail = sum(math.comb(total, k) for k in range(most, total + 1)) / 2**total
    return min(1.0, 2 * tail)


def _kept(folder: Path) -> UInt8[Tensor, "K T H W 3"]:
    path = (folder if folder.is_dir() else folder.parent) / "model.npy"
    if not path.is_file():
        raise ValueError(f"{path} is missing; evaluate a model, whose clips are kept there")
    return torch.from_numpy(np.load(path, allow_pickle=False))


def _parts(shown: Sequence[tuple[int, Tensor, Tensor]], page: str) -> list[str]:
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(reason)}"> {escape(reason)}</label>'
        for reason in REASONS
    )
    buttons = "".join(
        f'<button data-side="{side}">{word}</button> '
        for side, word in (("left", "Left"), ("tie", "No difference"), ("right", "Right"))
    )
    pairs = [
        f'<div class="pair" data-pair="{unit}"><div class="sides">'
        f"<figure>{_video(left)}</figure><figure>{_video(right)}</figure></div></div>"
        for unit, left, right in shown
    ]
    return [
        "<h1>Which clip is better?</h1>",
        '<p id="place"></p>',
        *pairs,
        f'<div id="panel"><p>{buttons}</p><p>Why?<br>{boxes}</p>',
        '<button id="next">Next</button></div>',
        '<p><button id="save" hidden>Save votes</button></p>',
        f"<script>const PAGE = '{page}';{_SCRIPT}</script>",
    ]


def _video(clip: UInt8[Tensor, "T H W 3"]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        scale = max(1, 256 // clip.shape[1])
        large = clip.repeat_interleave(scale, 1).repeat_interleave(scale, 2)
        write_video(path, large, _FPS)
        data = b64encode(path.read_bytes()).decode()
    return f'<video src="data:video/mp4;base64,{data}" autoplay loop muted playsinline></video>'


def _read(path: Path, needed: set[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
        if not needed <= {*found}:
            raise ValueError(f"it lacks {sorted(needed - {*found})}")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no file of this page ({error})") from error
    return found
