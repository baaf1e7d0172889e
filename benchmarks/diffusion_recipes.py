"""Recipes of configs/ for diffusion decoders, trained once on a model for the benchmark of uses."""

from pathlib import Path
from typing import Any

import torch
import yaml
from jaxtyping import Float
from torch import Tensor

from benchmarks.train_once import train_once
from data.shapes import Shapes
from data.video import to_model_range
from diffusion.decoder import DiffusionDecoder
from layers.processes import local_device
from pipeline import VideoPipeline

HALF_RATE: dict[str, Any] = {"speed": (1.0, 1.5)}
TWICE_THE_SIZE: dict[str, Any] = {
    "size": 128,
    "object_diameter": (32.0, 48.0),
    "speed": (4.0, 6.0),
}
CASCADES = {"larger": ([1, 2], 17, TWICE_THE_SIZE), "faster": ([2, 1], 33, HALF_RATE)}
"""How many times the frames and the pixels of a side, the frames of a clip, and what it shows."""


class Recipes:
    """Recipes that are trained on the tokens of a model, and clips to measure them on.

    Args:
        model: Model folder with a prior and a diffusion decoder.
        out: Where the trainings go.
        steps: Of each training.
        clips: How many are measured.
        decoder_steps: Calls of a decoder's network for a window.
    """

    def __init__(
        self, model: Path, out: Path, steps: int, clips: int, decoder_steps: int = 20
    ) -> None:
        self.model, self.out, self.steps, self.clips = model, out, steps, clips
        self.decoder_steps = decoder_steps

    def trained(self, name: str, recipe: str) -> VideoPipeline:
        """Train a recipe, unless that is done, and return its model.

        Raises:
            ValueError: What is done is of another number of steps or on another model.
        """
        config = yaml.safe_load(Path(f"configs/{recipe}.yaml").read_text())
        model = config["model"]["init_args"]
        model |= {"tokenizer_folder": str(self.model), "max_steps": self.steps}
        if "start_from" in model:
            model["start_from"] = str(self.model)
        if name in CASCADES:
            model["decoder"]["enlarge"], frames, scene = CASCADES[name]
            for split in ("train", "val"):
                shown = config["data"][split]["init_args"]
                for key in TWICE_THE_SIZE:
                    shown.pop(key, None)
                shown |= scene
            config["data"]["stages"][0]["num_frames"] = frames
        config["trainer"]["limit_val_batches"] = 1
        _require_as_asked(self.out / name, model)
        train_once(config, self.out / name)
        return opened(self.out / name / "model")

    def source(self, **scene: Any) -> Shapes:
        """Return what the held-out clips are read from."""
        return Shapes(self.clips, "val", **scene)

    def clip(self, num_frames: int, **scene: Any) -> Float[Tensor, "B 3 T H W"]:
        """Return held-out clips in [-1, 1]."""
        source = self.source(**scene)
        frames = [source.read(i, num_frames).frames for i in range(self.clips)]
        return to_model_range(torch.stack(frames)).to(local_device())

    def base_decoder(self) -> DiffusionDecoder:
        """Return the decoder of the model that the recipes begin with."""
        return opened(self.model).require_decoder()


def _require_as_asked(root: Path, asked: dict[str, Any]) -> None:
    """Raise ValueError where a folder holds a training of other steps or on another model."""
    if not (path := root / "config.yaml").is_file():
        return
    held = yaml.safe_load(path.read_text())["model"]["init_args"]
    for name in ("max_steps", "tokenizer_folder"):
        if held[name] != asked[name]:
            raise ValueError(
                f"{root} holds a training with {name} {held[name]}, but {asked[name]} is asked "
                "for; give another --out"
            )


def opened(folder: Path) -> VideoPipeline:
    """Open a model folder where clips are decoded: on the GPU where there is one."""
    return VideoPipeline.from_pretrained(folder).to(local_device())
