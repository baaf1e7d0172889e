"""One evaluation from end to end: check everything, run, sum up, stamp."""

import hashlib
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from evaluation import result
from evaluation.baselines import BASELINES, Neighbours
from evaluation.extractors import I3DFeatures, ScriptedFeatures, file_hash
from evaluation.frechet import RandomFeatures3D
from evaluation.likelihood import PSEUDO_GROUPS
from evaluation.measures import Measures, TextEncoder, TokenFacts
from evaluation.perception import PerceptualDistance
from evaluation.protocol import Protocol
from evaluation.reference import FirstClips, Reference
from evaluation.run import REAL, Extractors, Run
from evaluation.summary import MAX_KERNEL_CLIPS, Summary
from evaluation.systems import BaselineSystem, FileSystem, Model, ModelSystem, System
from evaluation.video_sets import open_videos

TRAINING_CLIPS = 1000
"""Of a built-in data set, among which neighbours are sought where no training data are given."""


@dataclass
class Files:
    """Local files of networks that others trained; each is optional.

    Args:
        i3d: I3D weights: then, and only then, the distance is called FVD.
        i3d_sha256: What the hash of that file must be.
        features: Another video network, as TorchScript.
        frame_features: Inception for FID, as TorchScript.
        classifier: C3D for the video Inception score, as TorchScript.
        lpips: A perceptual distance, as TorchScript.
        text_encoder: CLIP.
        train_data: What the model was trained on, to be searched for copies and by a baseline.
    """

    i3d: Path | None = None
    i3d_sha256: str | None = None
    features: Path | None = None
    frame_features: Path | None = None
    classifier: Path | None = None
    lpips: Path | None = None
    text_encoder: TextEncoder | None = None
    train_data: Path | None = None


@dataclass
class Options:
    """How to run.

    Args:
        num_clips: Fewer units than the protocol says.
        batch_size: Units at a time.
        seed: Of samples, windows and bootstrap.
        num_replicates: Draws of the bootstrap.
        sampling: What `generate` is told beside, such as temperature or decoder.
        rank: This process.
        world_size: How many processes share the units.
        device: Where networks that describe clips work.
    """

    num_clips: int | None = None
    batch_size: int = 8
    seed: int = 0
    num_replicates: int = 200
    sampling: dict[str, float | int | str] = field(default_factory=dict)
    rank: int = 0
    world_size: int = 1
    device: torch.device | str = "cpu"


class Found(NamedTuple):
    """The stamped result and the rows it was made of."""

    result: dict[str, Any]
    rows: dict[tuple[str, str], Tensor]


def evaluate(
    protocol: Protocol,
    model: Model | None,
    data: Path | None,
    files: Files,
    options: Options,
    clips: Path | None = None,
) -> Found | None:
    """Run a protocol; None in all processes but the first.

    Files and folders are checked before the first clip is made.

    Args:
        protocol: Which.
        model: What is measured, or None.
        data: Folder of real clips, or None for a built-in data set.
        files: Networks to measure with.
        options: How to run.
        clips: Clips of another model, as .npy, instead of a model.
    """
    size = protocol.size or (model.size if model is not None else 64)
    opened = open_videos(protocol, data, size, options.num_clips)
    reference = Reference(protocol, opened, size, options.num_clips, options.seed)
    extractors = _extractors(files, protocol)
    for network in (*extractors, files.text_encoder):
        if isinstance(network, nn.Module):
            network.to(options.device)
    neighbours = _neighbours(files.train_data, data, protocol, size)
    systems = _systems(protocol, model, clips, reference, options, neighbours)
    measures = _measures(files, protocol, model, reference.fps, options.device)
    notes = [*reference.notes, *_rank_notes(protocol, len(reference), extractors.video)]
    rank = {"rank": options.rank, "world_size": options.world_size}
    parts = protocol, reference, systems, measures, extractors, neighbours
    rows = Run(*parts, batch_size=options.batch_size, **rank)()
    if options.rank:
        return None
    codebook_size = getattr(model.codec(), "codebook_size", None) if model is not None else None
    summary = Summary(
        protocol,
        measures,
        extractors,
        rows,
        num_replicates=options.num_replicates,
        seed=options.seed,
        codebook_size=codebook_size,
    )
    told = {name: s.condition for name, s in systems.items() if isinstance(s, ModelSystem)}
    facts = {"told": told, "videos": reference.kind, "pseudo_groups": PSEUDO_GROUPS}
    stamp = result.stamp(
        protocol,
        counts=_counts(protocol, len(reference), options.num_replicates, size, measures.fps),
        hashes=_hashes(files, extractors, model, clips, rows[REAL, "digest"], neighbours, options),
        seeds=dict.fromkeys(("sampling", "windows", "bootstrap"), options.seed),
        deviations=[*reference.deviations, *_deviations(protocol, len(reference), model, size)],
        options={"sampling": options.sampling, "notes": notes, **facts},
    )
    return Found(stamp | {"systems": {s: summary.system(s) for s in [*systems, REAL]}}, rows)


def _extractors(files: Files, protocol: Protocol) -> Extractors:
    if files.i3d is not None:
        video: nn.Module = I3DFeatures(files.i3d, files.i3d_sha256, protocol.resize).prove()
    elif files.features is not None:
        video = ScriptedFeatures(files.features)
    else:
        video = RandomFeatures3D()
    frames = files.frame_features
    return Extractors(
        video,
        ScriptedFeatures(frames, per_frame=True) if frames is not None else None,
        ScriptedFeatures(files.classifier) if files.classifier is not None else None,
    )


def _systems(
    protocol: Protocol,
    model: Model | None,
    clips: Path | None,
    reference: Reference,
    options: Options,
    neighbours: Neighbours | None,
) -> dict[str, System]:
    systems: dict[str, System] = {}
    if model is not None:
        systems["model"] = ModelSystem(model, protocol, options.seed, options.sampling)
    elif clips is not None:
        systems["model"] = FileSystem(clips, protocol, len(reference), reference.size)
    if protocol.task == "predict":
        answers = BASELINES | ({"nearest_train": neighbours.go_on} if neighbours else {})
        systems |= {name: BaselineSystem(answer, protocol) for name, answer in answers.items()}
    if not systems:
        raise ValueError(f"{protocol.name} has no baseline; give a model or a .npy of clips")
    return systems


def _measures(
    files: Files,
    protocol: Protocol,
    model: Model | None,
    fps: float,
    device: torch.device | str,
) -> Measures:
    facts = None
    if model is not None and model.prior is not None:
        grid = model.prior.grid
        facts = TokenFacts(model.tokenizer.temporal_stride, grid[1] * grid[2], model.size)
    return Measures(
        grey=protocol.grey,
        paired=protocol.task != "generate",
        context_frames=protocol.context_frames,
        fps=fps,
        lpips=PerceptualDistance(files.lpips).to(device) if files.lpips is not None else None,
        clip=files.text_encoder,
        captions=protocol.condition == "caption",
        token_facts=facts,
    )


def _neighbours(
    train_data: Path | None, data: Path | None, protocol: Protocol, size: int
) -> Neighbours | None:
    """Read what the model was trained on; a built-in data set is known to have been."""
    if train_data is None and (data is not None or not protocol.built_in):
        return None
    opened = open_videos(protocol, train_data, size, TRAINING_CLIPS, training=True)
    every = replace(protocol, num_clips=None, draw="each", windows=1, layout="")
    return Neighbours(FirstClips(Reference(every, opened, size, None, 0)))


def _rank_notes(protocol: Protocol, num_units: int, extractor: nn.Module) -> list[str]:
    """Warn where a covariance cannot have full rank, before hours are spent."""
    fewest, features = num_units * min(protocol.windows, protocol.samples), extractor.num_features
    if fewest > int(features):  # type: ignore[arg-type]
        return []
    note = (
        f"{fewest} clips against {features} features leave the covariance without full rank: the "
        "Frechet distance is dominated by the number of clips"
    )
    warnings.warn(note, stacklevel=3)
    return [note]


def _counts(
    protocol: Protocol, units: int, replicates: int, size: int, fps: float
) -> dict[str, int | float]:
    return {
        "units": units,
        "real": units * protocol.windows,
        "samples": units * protocol.samples,
        "replicates": replicates,
        "size": size,
        "fps": fps,  # the dynamic degree hangs on it
        "kernel_clips": MAX_KERNEL_CLIPS,
    }


def _deviations(protocol: Protocol, num_units: int, model: Model | None, size: int) -> list[str]:
    found = []
    if protocol.num_clips not in (None, num_units):
        found.append(f"{num_units} units instead of {protocol.num_clips}")
    if model is not None and model.size != size:
        found.append(f"the model works at {model.size} pixels, the protocol at {size}")
    return found


def _hashes(
    files: Files,
    extractors: Extractors,
    model: Model | None,
    clips: Path | None,
    digest: Tensor,
    neighbours: Neighbours | None,
    options: Options,
) -> dict[str, str]:
    """Name everything that a number depends on."""
    found = {"data": result.content_hash(digest)}
    if model is not None:
        decoder = model.decoder if options.sampling.get("decoder") == "diffusion" else None
        found["model"] = weights_hash(model.tokenizer, model.prior, decoder)
    if clips is not None:
        found["model"] = file_hash(clips)
    for name, network in extractors._asdict().items():
        if network is not None:
            found[name] = getattr(network, "sha256", network.extractor_id)
    if files.lpips is not None:
        found["lpips"] = file_hash(files.lpips)
    if neighbours is not None:
        found["train_data"] = neighbours.sha256
    if files.text_encoder is not None:
        found["text"] = files.text_encoder.extractor_id
    return found


def weights_hash(*modules: nn.Module | None) -> str:
    """Return one hash of the weights of some modules."""
    digest = hashlib.sha256()
    for module in modules:
        for name, value in sorted(module.state_dict().items()) if module is not None else ():
            digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
