"""A tokenizer from a folder of its own, from a pipeline's folder, from the hub."""

import json

import pytest
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from layers import storage
from pipeline import VideoPipeline
from tokenizer import Tokenizer


@pytest.mark.parametrize("whole", [True, False])
def test_a_saved_tokenizer_is_bit_for_bit_the_same(pipe, clip, tmp_path, whole):
    (pipe if whole else pipe.tokenizer).save_pretrained(tmp_path)
    again = Tokenizer.from_pretrained(tmp_path)
    assert not again.training
    assert torch.equal(again.encode(clip), pipe.tokenizer.encode(clip))
    assert again.fingerprint() == pipe.tokenizer.fingerprint()


@pytest.mark.parametrize("whole", [True, False])
def test_only_the_tokenizer_is_asked_of_the_hub(pipe, tmp_path, monkeypatch, whole):
    (pipe if whole else pipe.tokenizer).save_pretrained(tmp_path / "hub")
    asked = []

    def download(name, allow_patterns):
        asked.extend([name, *allow_patterns])
        for path in tmp_path.glob("hub/prior/*"):
            path.unlink()
        return str(tmp_path / "hub")

    monkeypatch.setattr(storage, "snapshot_download", download)
    tokenizer = Tokenizer.from_pretrained("owner/name")
    assert tokenizer.fingerprint() == pipe.tokenizer.fingerprint()
    assert asked[0] == "owner/name"
    assert not [pattern for pattern in asked[1:] if pattern.startswith("*")]


@pytest.mark.parametrize("whole", [True, False])
def test_a_damaged_file_is_named(pipe, tmp_path, whole):
    (pipe if whole else pipe.tokenizer).save_pretrained(tmp_path)
    (path,) = [p for p in tmp_path.rglob("model.safetensors") if "prior" not in p.parts]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Tokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "error",
    [LocalEntryNotFoundError("no connection\nand more"), HFValidationError("no connection")],
    ids=["offline", "no name"],
)
def test_a_typing_error_in_a_folder_is_called_so_even_offline(monkeypatch, error):
    def download(name, allow_patterns):
        raise error

    monkeypatch.setattr(storage, "snapshot_download", download)
    with pytest.raises(ValueError, match=r"runs/typo is neither a folder nor.*\(no connection\)"):
        Tokenizer.from_pretrained("runs/typo")


@pytest.mark.parametrize("whole", [True, False])
def test_a_folder_may_be_the_clone_of_a_repository(pipe, tmp_path, whole):
    """What was there before is not the model's, and may change after."""
    for name in ("README.md", ".gitattributes", ".git/HEAD", ".git/objects/00/1"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("old")
    (pipe if whole else pipe.tokenizer).save_pretrained(tmp_path)
    files = json.loads((tmp_path / "manifest.json").read_text())["files"]
    own = ["config.json", "model.safetensors"]
    parts = {f"{part}/{name}" for part in ("tokenizer", "prior") for name in own}
    assert set(files) == ({*parts, "prior/text.model"} if whole else {*own})
    (tmp_path / "README.md").write_text("new")
    (tmp_path / ".git" / "HEAD").unlink()
    assert Tokenizer.from_pretrained(tmp_path).fingerprint() == pipe.tokenizer.fingerprint()
    if whole:
        VideoPipeline.from_pretrained(tmp_path)


def test_what_is_no_tokenizer_is_refused(pipe, tmp_path):
    with pytest.raises(ValueError, match="neither a folder nor a hub id"):
        Tokenizer.from_pretrained(tmp_path / "a" / "b")
    with pytest.raises(ValueError, match=r"no manifest\.json"):
        Tokenizer.from_pretrained(tmp_path)
    storage.save_module(pipe.prior, tmp_path)
    storage.write_manifest(tmp_path, {})
    with pytest.raises(ValueError, match="AutoregressivePrior"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_pipeline_is_not_overwritten_by_its_tokenizer(pipe, tmp_path):
    pipe.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="another folder"):
        pipe.tokenizer.save_pretrained(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert any(name.startswith("prior/") for name in manifest["files"])
