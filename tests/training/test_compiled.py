"""Every kind of network is trained compiled as it is eagerly."""

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

# In a process without the type checks of the tests, which do not mix with torch.compile; in
# float32, where no rounding hides a difference.
SCRIPT = """
import contextlib, sys
import training.module
training.module.autocast = lambda device: contextlib.nullcontext()
import train
train.main(sys.argv[1:])
"""
STAGES = [{"num_frames": 5, "batch_size": 2, "share": 1.0}]
SMALL_PRIOR = {"transformer": {"width": 32, "depth": 2, "num_heads": 1}, "grid": [2, 8, 8]}
CHANGED = {
    "gan_tokenizer": {"tokenizer": {"channels": [16, 32]}, "adversary": {"start_step": 1}},
    "demo_prior": {"prior": SMALL_PRIOR},
    "demo_maskgit": {"prior": {"init_args": SMALL_PRIOR}},
    "demo_decoder": {
        "decoder": {"network": {"init_args": {"channels": [32], "depths": [1]}}, "window": 2}
    },
}


def merged(tree: Any, changed: Any) -> Any:
    """Return nested mappings with those values that are changed."""
    if not isinstance(changed, dict):
        return changed
    return {**tree, **{name: merged(tree.get(name, {}), new) for name, new in changed.items()}}


def steps(name: str, root: Path, compiled: bool) -> list[dict[str, str]]:
    """Train two steps and return what each logged."""
    config = yaml.safe_load(Path(f"configs/{name}.yaml").read_text())
    told = {"max_steps": 2, "recipe": {"compile": compiled}}
    if name != "gan_tokenizer":
        told["tokenizer_folder"] = str(root / "gan_tokenizer")
    model = merged(config["model"]["init_args"], CHANGED[name] | told)
    config["model"]["init_args"] = model
    config["data"] |= {"val_clips": 2, "stages": STAGES}
    config["trainer"] |= {"log_every_n_steps": 1, "default_root_dir": str(root / f"{name}_run")}
    config["export"] = str(root / name)
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "-c", SCRIPT, "fit", f"--config={path}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    logged = max(root.glob(f"{name}_run/csv/*/metrics.csv"))
    rows = csv.DictReader(logged.read_text().splitlines())
    rows = [row for row in rows if row["train/loss"]]
    assert len(rows) == 2
    return rows


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_compiled_steps_equal_eager_ones(tmp_path):
    for name in CHANGED:
        eager, compiled = (steps(name, tmp_path, compiled) for compiled in (False, True))
        for one, other in zip(eager, compiled, strict=True):
            for key in ("train/loss", "train/gradient_norm"):
                assert float(one[key]) == pytest.approx(float(other[key]), rel=1e-3), (name, key)
