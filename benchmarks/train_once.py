"""A training of a study, by the public command: done once, gone on with where it was stopped."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml


def train_once(config: dict[str, Any], root: Path, threads: int | None = None) -> float:
    """Train what a configuration says in a folder, unless that is done.

    Args:
        config: As `train.py fit` takes it; where it writes is set here.
        root: Folder of the run; the model folder is `root`/model.
        threads: Of its own, where others train beside it; by default as many as there are.

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
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    started, process = time.monotonic(), subprocess.Popen(command, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = code = os.waitstatus_to_exitcode(status)
    finished = code == 0 and (root / "model").is_dir()  # a training told to end exits with 0 too
    facts = {
        "seconds": facts["seconds"] + time.monotonic() - started,
        "cpu_seconds": facts["cpu_seconds"] + used.ru_utime + used.ru_stime,
        "done": finished,
    }
    done.write_text(json.dumps(facts) + "\n")
    if not finished:
        sys.exit(f"the training in {root} stopped; the same command goes on from there")
    return facts["seconds"]
