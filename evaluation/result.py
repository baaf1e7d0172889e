"""A result that says where it comes from, and which results may stand side by side."""

import hashlib
import json
import math
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from evaluation.lengths import LENGTH_RULE
from evaluation.protocol import Protocol

_PACKAGES = ("torch", "torchmetrics", "numpy", "av", "einops", "vector-quantize-pytorch")


def stamp(
    protocol: Protocol,
    *,
    counts: dict[str, int | float],
    hashes: dict[str, str],
    seeds: dict[str, int],
    deviations: list[str],
    options: dict[str, Any],
) -> dict[str, Any]:
    """Say what a number needs to mean something.

    Args:
        protocol: What was run.
        counts: Units, real clips, samples, replicates; size and rate of the clips.
        hashes: SHA-256 of the model, the real clips and the files of the extractors.
        seeds: Of sampling, windows and bootstrap.
        deviations: What is not as the protocol says.
        options: What the model was told beside.
    """
    return {
        "protocol": protocol.as_dict(),
        "length_rule": LENGTH_RULE,
        "deviations": deviations,
        "counts": counts,
        "hashes": hashes,
        "seeds": seeds,
        "options": options,
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {p: version(p) for p in _PACKAGES},
    }


def commit() -> str:
    """Return the commit of the code, with a mark where files were changed; "" outside of git."""
    here = Path(__file__).parent
    try:
        run = [
            subprocess.run(
                ["git", *command], cwd=here, capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run[0] + ("-changed" if run[1] else "")


def content_hash(rows: torch.Tensor) -> str:
    """Return one hash of the hashes of all units, in their order."""
    return hashlib.sha256(rows.numpy().tobytes()).hexdigest()


def why_not_comparable(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Return every reason not to put two results side by side; none if they may stand there."""
    reasons = []
    for group in ("protocol", "counts"):
        one, two = first[group], second[group]
        reasons += [
            f"{group}: {name} is {one.get(name)!r} in one and {two.get(name)!r} in the other"
            for name in sorted({*one, *two})
            if one.get(name) != two.get(name)
        ]
    one, two = ({k: v for k, v in r["hashes"].items() if k != "model"} for r in (first, second))
    reasons += [
        f"{name}: another file or data ({str(one.get(name))[:12]} and {str(two.get(name))[:12]})"
        for name in sorted({*one, *two})
        if one.get(name) != two.get(name)
    ]
    return reasons


def require_comparable(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Refuse to put two results side by side that do not belong there.

    Raises:
        ValueError: With every reason.
    """
    reasons = why_not_comparable(first, second)
    if reasons:
        lines = "\n".join(f"  {reason}" for reason in reasons)
        raise ValueError(f"these results must not stand side by side; run both alike:\n{lines}")


def write(path: Path, result: dict[str, Any]) -> None:
    """Write a result; what is not finite becomes null."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(_plain(result), indent=2, allow_nan=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        ValueError: The file is missing, or something else.
    """
    path = path / "result.json" if path.is_dir() else path
    try:
        result = json.loads(path.read_text())
        if not {"protocol", "systems", "counts", "hashes"} <= {*result}:
            raise ValueError("it lacks the stamp")
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{path} is no result of evaluate.py ({error})") from error
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
