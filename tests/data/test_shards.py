"""Shards: what is written is read back, and nothing damaged or hostile gets by."""

import hashlib
import io
import json
import shutil
import tarfile
import warnings
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
import webdataset
from torch.utils.data import DataLoader

from data.datamodule import WindowDataset, collate
from data.manifest import Manifest
from data.schedule import Stage, StepSampler
from data.shard_folder import ShardFolder
from data.shards import FORMAT, ShardError, index_shard, write_shard
from data.video import VideoWriter, decode_clip


def noise(num_frames, seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (num_frames, size, size, 3), generator=generator).to(torch.uint8)


def mp4(folder, frames, fps=8.0, gop=4):
    with VideoWriter(folder / "clip.mp4", fps, lossless=True, gop=gop) as writer:
        writer.write(frames)
    return (folder / "clip.mp4").read_bytes()


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sample(folder, index, num_frames=12):
    actions = np.arange(2 * num_frames, dtype=np.float32).reshape(num_frames, 2) + 100 * index
    meta = {"num_frames": num_frames, "fps": 8.0, "source": f"{index // 2}.avi"}
    meta["captions"] = [f"number {index}"]
    files = {"mp4": mp4(folder, noise(num_frames, index)), "actions.npy": npy(actions)}
    return f"clip-{index:04d}", files | {"json": json.dumps(meta).encode()}


def write(folder, shards, scratch):
    """Write a data set of the given shards, each a list of samples."""
    folder.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)
    manifest = Manifest(folder)
    for number, samples in enumerate(shards):
        manifest.add(write_shard(folder, f"shard-{number:03d}.tar", samples, scratch, {}))
    settings = {"format": FORMAT, "shards": len(shards)}
    (folder / "dataset.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    samples = [sample(folder, index) for index in range(10)]
    shards = [samples[:4], samples[4:5], [], samples[5:]]
    return write(folder / "shards", shards, folder / "scratch")


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "copied"))


def test_every_clip_comes_back_exactly(made):
    source = ShardFolder(made, min_frames=5)
    assert len(source) == 10
    for index in range(10):
        read = source.read(index, 5, offset=0.3)
        assert read.place == source.place(index, 5, offset=0.3) == (f"clip-{index:04d}", 2, 1)
        assert torch.equal(read.frames, noise(12, index)[2:7])
        assert read.caption == f"number {index}"
        assert read.actions is not None
        assert read.actions[:, 1].tolist() == [100 * index + 2 * k + 1 for k in range(2, 7)]
    assert source.captions == [f"number {index}" for index in range(10)]
    assert source.fps == 8.0


def test_webdataset_itself_reads_the_same_samples(made):
    files = sorted(map(str, Path(made).glob("*.tar")))
    read = webdataset.WebDataset(files, shardshuffle=False, empty_check=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # webdataset leaves its files to the garbage collector
        seen = {sample["__key__"]: sample for sample in read}
    assert sorted(seen) == [f"clip-{index:04d}" for index in range(10)]
    for index in range(10):
        assert torch.equal(decode_clip(seen[f"clip-{index:04d}"]["mp4"]), noise(12, index))


@pytest.mark.parametrize("fps", [8.0, 24000 / 1001, 29.97])
@pytest.mark.parametrize("gop", [1, 4, 16])
def test_a_window_equals_that_of_the_whole_video_at_every_start(tmp_path, gop, fps):
    frames = noise(23)
    meta = {"num_frames": 23, "fps": fps}
    content = {"mp4": mp4(tmp_path, frames, fps, gop), "json": json.dumps(meta).encode()}
    source = ShardFolder(write(tmp_path / "out", [[("a", content)]], tmp_path / "s"), min_frames=3)
    for start in range(21):
        assert torch.equal(source.read(0, 3, start / 21 + 1e-9).frames, frames[start : start + 3])
    assert torch.equal(source.read(0, 4, 0.99, stride=7).frames, frames[1::7])


def test_the_same_samples_give_the_same_bytes(made, tmp_path):
    samples = [sample(tmp_path, index) for index in range(4)]
    write(tmp_path / "again", [samples], tmp_path / "scratch")
    for name in ("shard-000.tar", "shard-000.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (Path(made) / name).read_bytes()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_manifest_tells_size_count_and_hash(made):
    lines = [json.loads(line) for line in (Path(made) / "manifest.jsonl").read_text().splitlines()]
    assert [line["samples"] for line in lines] == [4, 1, 0, 5]
    for line in lines:
        if line["samples"]:
            content = (Path(made) / line["shard"]).read_bytes()
            assert line["bytes"] == len(content)
            assert line["sha256"] == hashlib.sha256(content).hexdigest()


def test_a_cut_at_any_place_is_an_error_that_names_the_shard(copied):
    shard = copied / "shard-003.tar"
    whole = shard.read_bytes()
    ends = {0, 511, 512, 1000, *range(5000, len(whole), 4999), len(whole) - 10240, len(whole) - 1}
    for end in sorted(ends):
        shard.write_bytes(whole[:end])
        with pytest.raises(ShardError, match=r"shard-003\.tar has \d+ bytes.*cut off"):
            ShardFolder(str(copied))
    shard.unlink()
    with pytest.raises(ShardError, match=r"shard-003\.tar is missing"):
        ShardFolder(str(copied))


def test_a_cut_is_seen_without_a_manifest_too(copied):
    whole = (copied / "shard-003.tar").read_bytes()
    index = index_shard(io.BytesIO(whole), "x.tar")
    end = index[-1].files["mp4"].offset + index[-1].files["mp4"].size
    for length in [0, 512, 1024, *range(3000, end + 512, 2999)]:
        with pytest.raises(ShardError, match=r"x\.tar"):
            index_shard(io.BytesIO(whole[:length]), "x.tar")


def test_an_altered_shard_is_an_error_when_opened_with_verify_and_when_read(copied):
    shard = copied / "shard-000.tar"
    content = bytearray(shard.read_bytes())
    offset = ShardFolder(str(copied), min_frames=5)._clips[2].stored.entry.files["mp4"].offset
    content[offset + 50] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ShardError, match=r"shard-000\.tar was altered"):
        ShardFolder(str(copied), min_frames=5, verify=True)
    source = ShardFolder(str(copied), min_frames=5)
    source.read(1, 5)
    with pytest.raises(ShardError, match=r"shard-000\.tar was altered.*clip-0002"):
        source.read(2, 5)
    with pytest.raises(ShardError, match="altered"):  # no corrupt sample to be passed over
        collate([WindowDataset(source)[_window(2)]])


def _window(index):
    return StepSampler(10, [Stage(5, 10)], 1, seed=0).windows(0)[0]._replace(index=index)


def test_an_altered_index_or_manifest_is_an_error(copied):
    index, manifest = copied / "shard-000.jsonl", copied / "manifest.jsonl"
    original = index.read_bytes()
    index.write_bytes(original.replace(b"number 1", b"number 7"))
    with pytest.raises(ShardError, match=r"index of shard .*shard-000\.tar was altered"):
        ShardFolder(str(copied))
    index.write_bytes(original)
    lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ShardError, match="unfinished: 3 of 4"):
        ShardFolder(str(copied))
    manifest.write_bytes(b"".join(lines).replace(b"shard-000.tar", b"../etc-000.tar"))
    with pytest.raises(ShardError, match=r"names '\.\./etc-000\.tar'"):
        ShardFolder(str(copied))


def tar_of(names, kind=tarfile.REGTYPE):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            info.size = 4 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"evil"))
    stream.seek(0)
    return stream


@pytest.mark.parametrize(
    "name",
    ["../evil.mp4", "/tmp/evil.mp4", "a/../../evil.mp4", "..", "a b.mp4", "a", "é.mp4", "a.MP4"],
)
def test_names_that_lead_elsewhere_are_refused_and_nothing_is_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShardError, match=r"x\.tar holds"):
        index_shard(tar_of([name]), "x.tar")
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
)
def test_links_folders_and_pipes_are_refused(kind):
    with pytest.raises(ShardError, match="not a file"):
        index_shard(tar_of(["a.mp4"], kind), "x.tar")


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "pyd", "pth", "pt", "extra.pkl"])
def test_pickles_are_refused(suffix):
    with pytest.raises(ShardError, match=r"x\.tar holds .*pickled files can run code"):
        index_shard(tar_of([f"a.{suffix}"]), "x.tar")


def test_an_array_of_objects_is_refused(tmp_path):
    stream = io.BytesIO()
    np.save(stream, np.array([{}], dtype=object), allow_pickle=True)
    key, files = sample(tmp_path, 0)
    files["actions.npy"] = stream.getvalue()
    source = ShardFolder(write(tmp_path / "out", [[(key, files)]], tmp_path / "s"), min_frames=5)
    with pytest.raises(ShardError, match=r"clip-0000 of shard-000\.tar.*Object arrays"):
        source.read(0, 5)


def test_commands_are_refused():
    with pytest.raises(ValueError, match="commands are never run"):
        ShardFolder("pipe:cat shard.tar")


def test_keys_that_would_merge_or_repeat_are_refused(tmp_path):
    for key in ("clip_1.5s_a", "a/b", "", ".."):
        with pytest.raises(ValueError, match="letters, digits"):
            write_shard(tmp_path, "x.tar", [(key, {"json": b"{}"})], tmp_path, {})
    with pytest.raises(ShardError, match=r"a\.json twice"):
        write_shard(tmp_path, "x.tar", [("a", {"json": b"{}"})] * 2, tmp_path, {})
    with pytest.raises(ShardError, match="twice"):
        index_shard(tar_of(["a.mp4", "b.mp4", "a.json"]), "x.tar")


def test_a_shard_that_fails_midway_never_gets_its_name(tmp_path):
    def failing():
        yield "a", {"json": b"{}"}
        raise RuntimeError

    (tmp_path / "scratch").mkdir()
    with pytest.raises(RuntimeError):
        write_shard(tmp_path, "x.tar", failing(), tmp_path / "scratch", {})
    assert [path.name for path in tmp_path.iterdir()] == ["scratch"]


def test_an_undecodable_clip_is_skipped_and_named(tmp_path):
    samples = [sample(tmp_path, index) for index in range(3)]
    samples[1][1]["mp4"] = b"not a video"
    path = write(tmp_path / "out", [samples], tmp_path / "s")
    source = ShardFolder(path, min_frames=5)
    reading = WindowDataset(source)[_window(1)]
    assert reading.sample is not None
    assert reading.sample.place.key == "clip-0002"
    assert "broken" in reading.skipped[0]
    assert "clip-0001" in reading.skipped[0]


def test_a_split_holds_out_whole_videos(made):
    splits = [ShardFolder(made, split, min_frames=5) for split in ("train", "val")]
    keys = [[source.place(k, 5).key for k in range(len(source))] for source in splits]
    videos = [{int(key[-4:]) // 2 for key in part} for part in keys]
    assert [len(part) for part in keys] == [8, 2]
    assert videos[0] | videos[1] == {0, 1, 2, 3, 4}
    assert not videos[0] & videos[1]
    held = {ShardFolder(made, "val", min_frames=5, seed=s).place(0, 5).key for s in range(8)}
    assert len(held) > 2


def test_short_clips_are_left_out_and_counted(made):
    with pytest.raises(ShardError, match="no clip of 13 frames"):
        ShardFolder(made, min_frames=13)
    with pytest.raises(ValueError, match="num_frames is 13, but clip clip-0000 has 12"):
        ShardFolder(made, min_frames=5).read(0, 13)


def test_frames_are_made_smaller_on_request(made):
    assert ShardFolder(made, size=8, min_frames=5).read(0, 5).frames.shape == (5, 8, 8, 3)


def test_an_object_store_reads_like_a_folder(made):
    memory = fsspec.filesystem("memory")
    for file in Path(made).iterdir():
        memory.pipe(f"/bucket/{file.name}", file.read_bytes())
    near, far = ShardFolder(made, min_frames=5), ShardFolder("memory://bucket", min_frames=5)
    assert len(far) == len(near)
    assert torch.equal(far.read(7, 5).frames, near.read(7, 5).frames)
    memory.rm("/bucket", recursive=True)


def test_a_stopped_run_goes_on_with_the_same_clips_and_another_number_of_workers(made):
    source, stages = ShardFolder(made, min_frames=5), [Stage(5, 3)]

    def run(first_step, workers, end=8):
        sampler = StepSampler(len(source), stages, 8, seed=1, first_step=first_step)
        loader = DataLoader(
            WindowDataset(source), batch_sampler=sampler, num_workers=workers, collate_fn=collate
        )
        batches = [batch for batch, _ in zip(loader, range(first_step, end), strict=False)]
        return [(batch.places, batch.clip.sum().item()) for batch in batches]

    whole = run(0, 0)
    assert run(0, 1, end=3) + run(3, 2) == whole
    keys = [place.key for places, _ in whole for place in places]
    assert Counter(keys[:10]) == Counter(f"clip-{k:04d}" for k in range(10))


def test_a_line_cut_off_by_a_crash_is_dropped_from_the_manifest(copied):
    manifest = copied / "manifest.jsonl"
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-7])
    assert list(Manifest(copied).records) == ["shard-000.tar", "shard-001.tar", "shard-002.tar"]
    assert manifest.read_bytes() == b"".join(whole.splitlines(keepends=True)[:3])
