"""A model folder is replaced as a whole or not at all."""

import json

import pytest

from layers import storage
from pipeline import VideoPipeline


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_fails_on_the_way_leaves_the_old_model(pipe, tmp_path, monkeypatch):
    pipe.save_pretrained(tmp_path / "model")
    before = content(tmp_path)
    written = []

    def full(state, path):
        if len(written) == 1:
            raise OSError("No space left on device")
        written.append(path)
        path.write_bytes(b"half")

    pipe.tokenizer.encoder.project.weight.data.add_(1)
    monkeypatch.setattr(storage, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        pipe.save_pretrained(tmp_path / "model")
    assert content(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_is_replaced_whole(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("mine")
    (tmp_path / ".model.partial").mkdir()  # of a process that was killed
    (tmp_path / ".model.partial" / "left").write_text("half")
    pipe.tokenizer.encoder.project.weight.data.add_(1)
    pipe.text = None
    pipe.save_pretrained(tmp_path / "model")
    again = VideoPipeline.from_pretrained(tmp_path / "model")
    assert again.tokenizer.fingerprint() == pipe.tokenizer.fingerprint()
    assert again.text is None
    assert (tmp_path / "model" / "README.md").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_part_that_the_manifest_does_not_name_is_not_read(pipe, tmp_path):
    """A decoder of which a killed export wrote half."""
    pipe.save_pretrained(tmp_path)
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "model.safetensors").write_bytes(b"half")
    assert VideoPipeline.from_pretrained(tmp_path).decoder is None


@pytest.mark.parametrize("manifest", [{"size": 32}, [1], {"files": "all"}])
def test_a_manifest_of_something_else_is_refused(tmp_path, manifest):
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"manifest\.json lists no files"):
        VideoPipeline.from_pretrained(tmp_path)


def test_a_cut_off_file_of_json_never_appears(tmp_path, monkeypatch):
    storage.write_json(tmp_path / "plan.json", {"a": 1})
    with pytest.raises(TypeError):
        storage.write_json(tmp_path / "plan.json", {"a": object()})
    assert storage.read_json(tmp_path / "plan.json") == {"a": 1}
