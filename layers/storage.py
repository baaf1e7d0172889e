"""A module on disk: weights as safetensors, the constructor's arguments as JSON, hashes of both."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from layers.configurable import Config, Configurable, build

CONFIG, WEIGHTS, MANIFEST = "config.json", "model.safetensors", "manifest.json"
TEXT = "text.model"


def find_model(folder_or_hub_id: str | Path, patterns: list[str] | None = None) -> Path:
    """Return a model folder, after a download where it is a name on the Hugging Face hub.

    Args:
        folder_or_hub_id: A folder, or owner/name.
        patterns: Which files to download; None for all.

    Raises:
        ValueError: There is no such folder, and no such model on the hub or no way there.
    """
    folder = Path(folder_or_hub_id)
    if folder.is_dir():
        return folder
    if str(folder_or_hub_id).count("/") != 1:
        raise ValueError(f"{folder_or_hub_id} is neither a folder nor a hub id owner/name")
    try:
        return Path(snapshot_download(str(folder_or_hub_id), allow_patterns=patterns))
    except (OSError, ValueError) as error:  # a name that none can have is a ValueError of the hub
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{folder_or_hub_id} is neither a folder nor a hub id owner/name that can be reached "
            f"({reason}); look for a typing error, or at the connection"
        ) from error


def require_folder(folder: Path) -> None:
    """Raise ValueError where a folder can neither be written into nor made."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        reason = "may not be written" if there.is_dir() else "is a file"
        raise ValueError(f"{folder} cannot be made: {there} {reason}; choose another folder")


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give a folder to write a model into that takes the place of what `folder` holds.

    Everything is written beside it and moved at the end, the manifest last: what fails or is killed
    while it writes leaves the old model whole, and the hashes tell of an end between two moves.
    Files that the new one has no successor for stay.
    """
    require_folder(folder)
    partial = folder.absolute().with_name(f".{folder.absolute().name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        files = [file.relative_to(partial) for file in partial.rglob("*") if file.is_file()]
        for name in sorted(files, key=lambda name: name == Path(MANIFEST)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).replace(folder / name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_module(module: nn.Module, folder: Path) -> None:
    """Write a `Configurable` module into a folder."""
    assert isinstance(module, Configurable)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    write_json(folder / CONFIG, module.config)


def load_module(folder: Path) -> Any:
    """Rebuild the module of a folder, in eval mode.

    Raises:
        ValueError: A file is missing, damaged or does not fit the other one.
    """
    config: Config = read_json(folder / CONFIG)
    module = build(config)
    try:
        module.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ValueError(
            f"{folder / WEIGHTS} cannot be read as weights of {config['class']}: {error}; "
            "save the model again"
        ) from error
    return module.eval()


def write_json(path: Path, value: Any) -> None:
    """Write readable JSON; a file of that name stays whole until the new one is."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.replace(path)


def read_json(path: Path) -> Any:
    """Read JSON; what is wrong with a file is said with its name."""
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}); save the model again") from error


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """List the files of a model with their hashes, beside some facts.

    They lie in the folder or one below it. What else is there, such as the README and the .git of a
    clone of a hub's repository, may change.
    """
    names = (CONFIG, WEIGHTS, TEXT)
    paths = sorted(p for name in names for p in [*folder.glob(name), *folder.glob(f"*/{name}")])
    files = {path.relative_to(folder).as_posix(): _digest(path) for path in paths}
    write_json(folder / MANIFEST, {**facts, "files": files})


def read_manifest(folder: Path, part: str = "") -> dict[str, Any]:
    """Return the facts of a model folder after comparing files with their hashes.

    Args:
        folder: The model folder.
        part: Look only at files whose name begins so.

    Raises:
        ValueError: The folder holds no model, or a file is missing, truncated or altered.
    """
    if not (folder / MANIFEST).is_file():
        raise ValueError(
            f"{folder} holds no {MANIFEST}, so it is no model folder; "
            "give the folder that save_pretrained or train.py wrote"
        )
    manifest = read_json(folder / MANIFEST)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{folder / MANIFEST} lists no files, so it is no manifest of a model")
    for name, digest in manifest["files"].items():
        path = folder / name
        if not name.startswith(part):
            continue
        if not path.is_file():
            raise ValueError(f"{path} is missing from the model; copy the whole folder again")
        if _digest(path) != digest:
            raise ValueError(
                f"{path} is not the file that was saved (another hash); copy the folder again"
            )
    return manifest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
