"""Cached tokens are the tokenizer's, whatever interrupted the caching, and only its prior's."""

import random
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import encode
from data import prepare
from data.episodes import Episode, write_episodes
from data.shard_folder import ShardFolder
from data.shards import ShardError
from data.token_datamodule import TokenDataModule
from data.tokens import TokenFolder, to_stored
from data.video import VideoWriter, to_model_range
from data.workers import Event

NUM_FRAMES = 5


def make_clips(folder, num_videos, num_frames, shard_videos=2):
    """Prepare videos of noise, in this process."""
    (folder / "videos").mkdir()
    for k in range(num_videos):
        generator = torch.Generator().manual_seed(k)
        frames = torch.randint(256, (num_frames, 32, 32, 3), generator=generator)
        with VideoWriter(folder / f"videos/{k:03d}.mp4", 8.0, lossless=True) as writer:
            writer.write(frames.to(torch.uint8))
        (folder / f"videos/{k:03d}.txt").write_text(f"number {k}")
    listing = prepare.list_videos(folder / "videos", "video", ["caption"])
    settings = prepare.Settings(size=32, fps=None, lossless=True, max_frames=16)
    prepare.prepare(listing, folder / "clips", settings, shard_videos=shard_videos, processes=1)
    return str(folder / "clips")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    def serially(work, tasks, num_processes):
        while tasks:
            task = tasks.popleft()
            yield Event("done", task, work(task, lambda name: None))

    monkeypatch.setattr(prepare, "run", serially)


@pytest.fixture
def made(tmp_path, pipe):
    pipe.save_pretrained(tmp_path / "model")
    return tmp_path, make_clips(tmp_path, 5, 12)


def command(folder, out="tokens"):
    return [str(folder / "model"), str(folder / "clips"), str(folder / out), "--frames=5"]


def content(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_cached_tokens_are_those_of_the_tokenizer(made, tiny_tokenizer):
    folder, clips = made
    encode.main([*command(folder), "--batch-size=3"])
    source, tokens = ShardFolder(clips, min_frames=5), TokenFolder(str(folder / "tokens"))
    assert len(tokens) == 10
    for index in range(10):
        clip, start = index // 2, 5 * (index % 2)
        frames = source.read(clip, 12).frames[start : start + 5]
        expected = tiny_tokenizer.encode(to_model_range(frames)[None])[0]
        read = tokens.read(index)
        assert (read.tokens != expected).float().mean() < 0.02  # of kernels for other batch sizes
        assert read.caption == f"number {clip}"
        assert read.place == (source.place(clip, 5).key, start, 1)
    assert tokens.fingerprint == tiny_tokenizer.fingerprint()
    assert (tokens.fps, tokens.size, tokens.num_frames) == (8.0, 32, 5)
    assert {k.rpartition(".")[2] for k in content(folder / "tokens")} == {"tar", "json", "jsonl"}


def test_parts_make_together_what_one_process_makes(made):
    folder, _ = made
    encode.main(command(folder, "whole"))
    for part in (1, 0, 2):
        if part != 1:
            with pytest.raises(ShardError, match="unfinished"):
                TokenFolder(str(folder / "parts"))
        encode.main([*command(folder, "parts"), f"--part={part}/3"])
    assert content(folder / "parts") == content(folder / "whole")


def test_parts_may_run_at_the_same_time_and_again(made, monkeypatch):
    folder, _ = made
    encode.main(command(folder, "whole"))
    monkeypatch.setattr(encode, "track", lambda shards, *rest, **options: shards)
    for _ in range(3):
        with ThreadPoolExecutor(4) as pool:
            parts = [[*command(folder, "parts"), f"--part={part}/4"] for part in range(4)]
            list(pool.map(encode.main, parts))
        assert content(folder / "parts") == content(folder / "whole")
    with pytest.raises(ValueError, match="count them from 0/4"):
        encode.main([*command(folder, "parts"), "--part=4/4"])


@pytest.mark.parametrize("part", ["3", "3/", "a/b", "-1/3"])
def test_a_part_that_is_none_is_refused(tmp_path, part, capsys):
    with pytest.raises(SystemExit):
        encode.main([*command(tmp_path), f"--part={part}"])
    assert f"the part is {part}; give k/n, such as 0/8" in capsys.readouterr().err


def test_clips_that_are_too_short_are_counted(made, capsys):
    folder, _ = made
    encode.main(command(folder))
    assert "left out" not in capsys.readouterr().out
    (folder / "more").mkdir()
    shutil.copytree(folder / "model", folder / "more/model")
    make_clips(folder / "more", 3, 20)  # of 16 and 4 frames
    encode.main(command(folder / "more"))
    said = capsys.readouterr().out
    assert "9 clips in 2 of 2 shards\nleft out 3 clips of less than 5 frames\n" in said


def test_tokens_hold_out_the_videos_that_their_clips_do(tmp_path, pipe):
    """Whatever the videos that are too short to be encoded: a tenth of all of them, by name."""
    pipe.save_pretrained(tmp_path / "model")
    lengths = [4 if k % 3 else 8 for k in range(31)]
    clips = [torch.full((n, 32, 32, 3), 8 * k, dtype=torch.uint8) for k, n in enumerate(lengths)]
    episodes = lambda a, b: iter([Episode(f"v{k}", clips[k].numpy()) for k in range(a, b)])
    write_episodes(tmp_path / "clips", episodes, 31, fps=8.0, kind="test")
    encode.main(command(tmp_path))
    for seed in range(8):
        held = {
            split: ShardFolder(str(tmp_path / "clips"), split, seed=seed, min_frames=1)
            for split in ("train", "val")
        }
        for split, source in held.items():
            names = {source.stored(i).entry.meta["source"] for i in range(len(source))}
            try:
                tokens = TokenFolder(str(tmp_path / "tokens"), split, seed)
            except ValueError:  # all that are held out are too short
                assert split == "val"
                continue
            found = {s.entry.meta["source"] for s in tokens._samples}
            assert found == {name for name in names if int(name[1:]) % 3 == 0}


def test_other_clips_or_another_tokenizer_need_another_folder(made, pipe):
    folder, _ = made
    encode.main(command(folder))
    with torch.no_grad():
        pipe.tokenizer.encoder.project.weight.add_(1)
    pipe.save_pretrained(folder / "model")
    with pytest.raises(ValueError, match="begun with another fingerprint;"):
        encode.main(command(folder))
    with pytest.raises(ValueError, match=r"num_frames is 6.*temporal stride"):
        encode.main([*command(folder)[:-1], "--frames=6"])


def test_tokens_of_another_tokenizer_are_refused_naming_both(made):
    folder, _ = made
    encode.main(command(folder))
    tokens = TokenFolder(str(folder / "tokens"))
    tokens.require(tokens.fingerprint)
    with pytest.raises(ValueError, match=f"tokenizer {tokens.fingerprint}.*tokenizer 0123abcd;"):
        tokens.require("0123abcd")


def test_tokens_outside_the_codebook_are_refused(made):
    folder, _ = made
    encode.main(command(folder))
    tokens = TokenFolder(str(folder / "tokens"))
    tokens.codebook_size = 3
    with pytest.raises(ShardError, match="codebook has 3"):
        tokens.read(0)


def test_tokens_are_stored_in_the_narrowest_type():
    for size, kind in ((2, np.uint16), (2**16, np.uint16), (2**16 + 1, np.uint32)):
        array = to_stored(torch.tensor([[[size - 1, 0]]]), size)
        assert array.dtype == kind
        assert array.tolist() == [[[size - 1, 0]]]


def test_batches_of_tokens_depend_on_the_step_alone(made):
    folder, _ = made
    encode.main(command(folder))

    def batches(split, steps_done=0):
        tokens = TokenFolder(str(folder / "tokens"))
        module = TokenDataModule(tokens, tokens, 4, max_steps=6, val_clips=7, val_batch_size=3)
        lightning_module = SimpleNamespace(steps_done=steps_done)
        trainer = {"lightning_module": lightning_module, "global_rank": 0, "world_size": 1}
        module.trainer = SimpleNamespace(**trainer)
        loader = module.train_dataloader() if split == "train" else module.val_dataloader()
        return [(batch.places, batch.tokens.tolist()) for batch in loader]

    assert batches("train")[4:] == batches("train", steps_done=4)
    assert batches("train")[0][1][0] != batches("train")[1][1][0]
    assert len({place for places, _ in batches("val") for place in places}) == 7


def killed_again_and_again(folder, pipe, num_videos, num_kills):
    """Kill the command at random moments after it made progress; compare with one whole run."""
    rng = random.Random(0)
    pipe.save_pretrained(folder / "model")
    make_clips(folder, num_videos, 40, shard_videos=1)
    line = [sys.executable, "encode.py", *command(folder), "--batch-size=2"]
    manifest = folder / "tokens/manifest.jsonl"
    lines = lambda: manifest.read_bytes().count(b"\n") if manifest.is_file() else 0
    kills = 0
    while kills < num_kills:
        before = lines()
        process = subprocess.Popen(line, stderr=subprocess.DEVNULL)
        while lines() <= before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        if process.poll() is not None:  # it was done before it could be killed
            assert process.returncode == 0
            shutil.rmtree(folder / "tokens")
            continue
        process.kill()
        process.wait()
        kills += 1
    subprocess.run(line, check=True, capture_output=True)
    subprocess.run([*line[:4], str(folder / "whole"), *line[5:]], check=True, capture_output=True)
    assert content(folder / "tokens") == content(folder / "whole")
    assert len(TokenFolder(str(folder / "tokens"))) == 7 * num_videos  # of 16, 16 and 8 frames


def test_three_kills_change_no_byte(tmp_path, pipe):
    killed_again_and_again(tmp_path, pipe, 40, 3)


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_kills_change_no_byte(tmp_path, pipe):
    killed_again_and_again(tmp_path, pipe, 250, 20)
