"""A training of a study, by the public command: done once, gone on with where it was stopped."""

import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml


def train_once(config: dict[str, Any], root: Path) -> float:
    """Train what a configuration says in a folder, unless that is done.

    Args:
        config: As `train.py fit` takes it; where it writes is set here.
        root: Folder of the run; the model folder is `root`/model.

    Returns:
        The seconds it took, over all calls; `seconds.json` holds those of its processors too, which
        other work on the machine does not lengthen.
    """
    done, last = root / "seconds.json", root / "checkpoints" / "last.ckpt"
    facts: dict[str, Any] = {"seconds": 0.0, "cpu_seconds": 0.0, "done": False}
    facts |= json.loads(done.read_text()) if done.is_file() else {}
    if facts["done"]:
        return facts["seconds"]
    root.mkdir(parents=True, exist_ok=True)
    config["trainer"]["default_root_dir"], config["export"] = str(root), str(root / "model")
    path = root / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [sys.executable, "train.py", "fit", f"--config={path}"]
    command += ["--ckpt_path=last"] if last.is_file() else []
    started, worked = time.monotonic(), _cpu_seconds()
    code = subprocess.run(command, check=False).returncode
    finished = code == 0 and (root / "model").is_dir()  # a training told to end exits with 0 too
    facts = {
        "seconds": facts["seconds"] + time.monotonic() - started,
        "cpu_seconds": facts["cpu_seconds"] + _cpu_seconds() - worked,
        "done": finished,
    }
    done.write_text(json.dumps(facts) + "\n")
    if not finished:
        sys.exit(f"the training in {root} stopped; the same command goes on from there")
    return facts["seconds"]


def _cpu_seconds() -> float:
    """Return the processor time of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
