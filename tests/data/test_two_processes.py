"""Two gloo processes read shards: as many steps on each, no clip on both."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from data.manifest import Manifest
from data.shards import FORMAT, write_shard
from data.video import VideoWriter

SCRIPT = """
import json, sys
import lightning, torch
from data import ShardFolder, Stage
from data.datamodule import VideoDataModule

class Recorder(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"train": [], "val": []}

    def training_step(self, batch, _):
        self.seen["train"].append([place.key for place in batch.places])
        return self.weight.sum() * batch.clip.mean()

    def validation_step(self, batch, _):
        torch.distributed.barrier()  # unequal steps would wait here for ever
        self.seen["val"].append([place.key for place in batch.places])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

source = ShardFolder(sys.argv[1], min_frames=3)
data = VideoDataModule(source, source, [Stage(3, 4)], max_steps=5, val_clips=13, val_batch_size=4)
module = Recorder()
trainer = lightning.Trainer(
    accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, use_distributed_sampler=False,
    logger=False, enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0,
    enable_model_summary=False,
)
trainer.fit(module, data)
with open(f"{sys.argv[2]}/{trainer.global_rank}.json", "w") as file:
    json.dump(module.seen, file)
"""


def make(folder: Path, num_clips: int) -> Path:
    (folder / "shards").mkdir()
    with VideoWriter(folder / "clip.mp4", 8.0) as writer:
        writer.write(torch.zeros(4, 16, 16, 3, dtype=torch.uint8))
    files = {"mp4": (folder / "clip.mp4").read_bytes(), "json": b'{"num_frames": 4, "fps": 8}'}
    manifest = Manifest(folder / "shards")
    for number, keys in enumerate(np.array_split(np.arange(num_clips), 3)):
        samples = [(f"clip-{key}", files) for key in keys]
        name = f"shard-{number}.tar"
        manifest.add(write_shard(folder / "shards", name, samples, folder, {}))
    settings = {"format": FORMAT, "shards": 3}
    (folder / "shards" / "dataset.json").write_text(json.dumps(settings))
    return folder / "shards"


def test_two_processes_take_equal_steps_on_disjoint_clips(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    shards = make(tmp_path, 20)
    done = subprocess.run(
        [sys.executable, script, shards, tmp_path],
        env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        timeout=240,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert [len(keys) for keys in first["train"]] == [len(keys) for keys in second["train"]]
    assert len(first["train"]) == 5
    both = [key for seen in (first, second) for keys in seen["train"] for key in keys]
    assert Counter(both) == Counter(f"clip-{k}" for k in range(20))
    assert len(first["val"]) == len(second["val"])
    both = [key for seen in (first, second) for keys in seen["val"] for key in keys]
    assert Counter(both) == Counter(f"clip-{k}" for k in range(13))
