"""Run a protocol: every system over every unit, sharded over processes, into tables.

Units go through in batches that do not depend on the number of processes, and tables put their rows
in order: one process and several give the same numbers.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from evaluation import likelihood
from evaluation.baselines import Neighbours
from evaluation.measures import Measures
from evaluation.protocol import Protocol
from evaluation.reference import Reference, Unit, greyed
from evaluation.systems import FileSystem, ModelSystem, System
from evaluation.table import ClipTable

MAX_KEPT = 64  # units whose clips are kept to be looked at
REAL = "real"  # the system that answers with the truth


class Extractors(NamedTuple):
    """Networks that describe clips; None where no file was given."""

    video: nn.Module
    frames: nn.Module | None = None
    classifier: nn.Module | None = None


class Run:
    """One protocol on one set of systems.

    Args:
        protocol: What is asked.
        reference: The units.
        systems: Who answers, by name.
        measures: What is read off the answers.
        extractors: Networks for distances between sets.
        neighbours: The training clips, if memorisation is asked for.
        batch_size: Units at a time.
        rank: This process.
        world_size: How many processes share the units.
    """

    def __init__(
        self,
        protocol: Protocol,
        reference: Reference,
        systems: Mapping[str, System],
        measures: Measures,
        extractors: Extractors,
        neighbours: Neighbours | None = None,
        *,
        batch_size: int = 8,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.protocol, self.reference, self.systems = protocol, reference, systems
        self.measures, self.extractors, self.neighbours = measures, extractors, neighbours
        batches = list(torch.arange(len(reference)).split(batch_size))
        if len(batches) < world_size:
            raise ValueError(
                f"{len(reference)} units in batches of {batch_size} leave some of {world_size} "
                "processes without work; lower --batch-size or start fewer processes"
            )
        self.batches = batches[rank::world_size]
        self.kept = kept_units(len(reference))
        self.tables: dict[tuple[str, str], ClipTable] = {}

    def __call__(self) -> dict[tuple[str, str], Tensor]:
        """Return the rows of all units by (system, what was read)."""
        for numbers in self.batches:
            units = [self.reference.read(number) for number in numbers.tolist()]
            self._measure_real(numbers, units)
            for name, system in self.systems.items():
                self._measure(name, system, numbers, units)
        return {key: table.compute() for key, table in self.tables.items()}

    def _measure_real(self, numbers: Tensor, units: Sequence[Unit]) -> None:
        """Describe the truth, once for all systems."""
        windows = torch.stack([unit.real for unit in units])
        first, captions = windows[:, 0], [unit.caption for unit in units]
        rows = self.measures.read_alone(first, captions)
        flat = rearrange(windows, "B W T H W2 C -> (B W) T H W2 C")
        features = self._features(flat)
        rows["video"] = rearrange(features, "(B W) D -> B (W D)", B=len(units))
        rows |= self._described(first)
        rows.pop("classes", None)
        rows["digest"] = torch.stack([_digest(clips) for clips in windows])
        self._fill(REAL, numbers, rows)
        self._keep(REAL, numbers, first)

    def _measure(self, name: str, system: System, numbers: Tensor, units: Sequence[Unit]) -> None:
        """Describe what one system answers."""
        target = torch.stack([unit.real[0] for unit in units])
        captions = [unit.caption for unit in units]
        samples: list[dict[str, Tensor]] = []
        # A baseline gives every sample alike; so does a tokenizer.
        draws = isinstance(system, ModelSystem | FileSystem) and self.protocol.task != "reconstruct"
        for sample in range(self.protocol.samples if draws else 1):
            clips = system(units, numbers.tolist(), sample)
            if self.protocol.grey:
                clips = greyed(clips)
            rows = self.measures.read(clips, target, captions)
            rows["video"] = self._features(clips)
            samples.append(rows | self._described(clips))
            if sample == 0:
                self._keep(name, numbers, clips)
        joined = {key: torch.cat([rows[key] for rows in samples], dim=1) for key in samples[0]}
        if isinstance(system, ModelSystem):
            joined |= self._tokens(system, target, captions)
        self._fill(name, numbers, joined)

    def _features(self, clips: UInt8[Tensor, "B T H W 3"]) -> Float[Tensor, "B D"]:
        """Describe clips one at a time: kernels round otherwise in another batch."""
        return torch.cat([self.extractors.video(clip) for clip in clips.split(1)])

    def _described(self, clips: UInt8[Tensor, "B T H W 3"]) -> dict[str, Tensor]:
        """Read what depends on files that were given."""
        rows, new = {}, clips[:, self.protocol.context_frames :]
        if self.extractors.frames is not None:
            rows["frames"] = self.extractors.frames(new)
        if self.extractors.classifier is not None:
            rows["classes"] = self.extractors.classifier(clips)
        if self.neighbours is not None:
            rows["nearest"] = self.neighbours.nearest(clips)[1][:, None]
        return rows

    def _tokens(
        self, system: ModelSystem, real: UInt8[Tensor, "B T H W 3"], captions: list[str]
    ) -> dict[str, Tensor]:
        """Read what the model's tokens and its prior say about real clips."""
        model = system.model
        if real.shape[2:4] != (model.size, model.size):
            return {}
        rows = {}
        if self.protocol.task == "reconstruct":
            tokens = system.tokens(real)
            rows |= {} if tokens.is_floating_point() else {"tokens": tokens.flatten(1).cpu()}
        elif system.condition in ("text", "none") and (kind := likelihood.kind(model.prior)):
            # Of clips without the actions or classes that it is told, they were another model's.
            frames = likelihood.scored_frames(model, real.shape[1])
            told = captions if system.condition == "text" else None
            rows[kind] = likelihood.bits_of(model, real[:, :frames], told)
        return rows

    def _fill(self, system: str, numbers: Tensor, rows: Mapping[str, Tensor]) -> None:
        for name, values in rows.items():
            key = (system, name)
            if key not in self.tables:
                width, dtype = values.shape[1], values.dtype
                self.tables[key] = ClipTable(len(self.reference), width, dtype)
            self.tables[key].update(numbers, values)

    def _keep(self, system: str, numbers: Tensor, clips: UInt8[Tensor, "B T H W 3"]) -> None:
        """Keep the clips of some units as they are, to be looked at."""
        key, size = (system, "clips"), clips[0].numel()
        if key not in self.tables:
            self.tables[key] = ClipTable(len(self.kept), size, torch.uint8)
        places = {unit: place for place, unit in enumerate(self.kept)}
        chosen = [row for row, number in enumerate(numbers.tolist()) if number in places]
        index = torch.tensor([places[int(numbers[row])] for row in chosen], dtype=torch.int64)
        self.tables[key].update(index, clips[chosen].flatten(1))


def kept_units(num_units: int) -> list[int]:
    """Return the units whose clips are kept: all, or evenly spaced ones."""
    count = min(num_units, MAX_KEPT)
    return [i * num_units // count for i in range(count)]


def _digest(clips: UInt8[Tensor, "W T H W2 3"]) -> Tensor:
    """Return the SHA-256 of pixels as 32 numbers."""
    digest = hashlib.sha256(clips.contiguous().numpy().tobytes()).digest()
    return torch.tensor(list(digest), dtype=torch.uint8)
