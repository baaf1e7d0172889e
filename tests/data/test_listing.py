"""Folders, lists and tables of videos: every line is a video or has a reason."""

import csv
import json
import random

import pytest

from data.container import VideoError
from data.listing import clean_caption, list_videos


def listed(src, **changes):
    return list_videos(src, **{"video_column": "video", "caption_columns": ["caption"]} | changes)


@pytest.fixture
def three(tmp_path):
    for name in ("a.mp4", "b.mp4", "c d.mp4"):
        (tmp_path / name).write_bytes(b"123")
    return tmp_path


def test_a_folder_lists_its_videos_with_the_captions_beside_them(three):
    (three / "a.txt").write_text(" red\n ball ")
    (three / "b.json").write_text("{")
    videos, rejected = listed(three)
    assert [(v.name, v.size, v.captions) for v in videos] == [
        ("a.mp4", 3, ("red ball",)),
        ("c d.mp4", 3, ()),
    ]
    assert "caption" in rejected["b.mp4"]


def test_a_list_is_relative_to_itself_and_names_what_is_missing(three, monkeypatch):
    (three / "deep").mkdir()
    (three / "deep/list.txt").write_text("../c d.mp4\r\n\n../none.mp4\n../a.mp4\n../a.mp4\n")
    monkeypatch.chdir("/")
    videos, rejected = listed(three / "deep/list.txt")
    assert [video.name for video in videos] == ["../c d.mp4", "../a.mp4"]
    assert list(rejected) == ["line 3"]
    assert "No such file" in rejected["line 3"]


def test_a_video_has_one_name_however_its_path_is_spelt(three):
    """Two names of one video could fall on both sides of the split."""
    spelt = ["a.mp4", "./a.mp4", f"{three}/a.mp4", "deep/../a.mp4", f"{three}/./b.mp4"]
    rows = [json.dumps({"video": p, "caption": f"said {k}"}) for k, p in enumerate(spelt)]
    (three / "deep").mkdir()
    (three / "list.jsonl").write_text("\n".join(rows))
    videos, rejected = listed(three / "list.jsonl")
    assert not rejected
    assert [(v.name, v.captions) for v in videos] == [
        ("a.mp4", ("said 0", "said 1", "said 2", "said 3")),
        ("b.mp4", ("said 4",)),
    ]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_a_table_gives_every_caption_of_a_video(three, suffix):
    with (three / f"t{suffix}").open("w", newline="") as file:
        writer = csv.writer(file, delimiter="," if suffix == ".csv" else "\t")
        writer.writerow(["id", "video", "caption", "long"])
        writer.writerow([1, "a.mp4", 'a "red", \n ball', "rolls"])
        writer.writerow([2, "b.mp4", "", ""])
        writer.writerow([3, "a.mp4", "again", "rolls"])
    videos, rejected = listed(three / f"t{suffix}", caption_columns=["caption", "long"])
    assert [video.captions for video in videos] == [('a "red", ball', "rolls", "again"), ()]
    assert not rejected


def test_json_lines_may_hold_lists_and_broken_lines_are_named(three):
    lines = ['{"video": "a.mp4", "caption": ["one", 2]}', "{", "[]", '{"video": 3}', '"x"']
    (three / "t.jsonl").write_text("\n".join(lines))
    videos, rejected = listed(three / "t.jsonl")
    assert [video.captions for video in videos] == [("one", "2")]
    assert list(rejected) == ["line 2", "line 3", "line 4", "line 5"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", "path,caption\na.mp4,x\n", "no column 'video' among path, caption"),
        ("t.txt", "none.mp4\n", "lists no video that is there"),
        ("t.pdf", "", "ends in '.pdf'"),
    ],
)
def test_what_lists_nothing_is_an_error(three, name, content, words):
    (three / name).write_text(content)
    with pytest.raises(VideoError, match=words):
        listed(three / name)
    with pytest.raises(VideoError, match="neither a folder nor a file"):
        listed(three / "absent.csv")


def any_text(rng, length):
    """Draw from all of Unicode: controls, surrogates, marks that run right to left, emoji."""
    ranges = [(0, 0x80), (0, 0x300), (0x200B, 0x2070), (0xD800, 0xE000), (0x1F300, 0x1FAFF)]
    ranges += [(0, 0xFFFF), (0, 0x10FFFF)]
    return "".join(chr(rng.randrange(*rng.choice(ranges))) for _ in range(length))


def test_ten_thousand_captions_of_any_character_are_kept_clean_or_named(three):
    rng = random.Random(0)
    texts = [any_text(rng, rng.randrange(1, 6)) for _ in range(10_000)]
    (three / "t.jsonl").write_text(
        "\n".join(json.dumps({"video": "a.mp4", "caption": text}) for text in texts)
    )
    videos, rejected = listed(three / "t.jsonl")
    stored = [json.loads(json.dumps(text)) for text in texts]  # where two surrogates may meet
    bad = [n for n, t in enumerate(stored, 1) if any(0xD800 <= ord(c) < 0xE000 for c in t)]
    assert list(rejected) == [f"line {number}" for number in bad]
    assert 1000 < len(bad) < 9000
    kept = {clean_caption(t) for n, t in enumerate(stored, 1) if f"line {n}" not in rejected}
    assert set(videos[0].captions) == kept - {""}
    for caption in videos[0].captions:
        assert caption == " ".join(caption.split())
        assert all(ord(c) >= 32 and not 127 <= ord(c) < 160 for c in caption)
        assert json.loads(json.dumps(caption)) == caption == caption.encode().decode()


def test_bytes_that_are_no_text_are_named_and_harm_no_other_line(three):
    (three / "t.csv").write_bytes(
        b"video,caption\na.mp4,\xff\xfe\nb.mp4,fine\n\xff.mp4,x\n,\n\0,y\n"
    )
    videos, rejected = listed(three / "t.csv")
    assert [(video.name, video.captions) for video in videos] == [("b.mp4", ("fine",))]
    assert sorted(rejected) == ["line 2", "line 4", "line 5", "line 6"]
    assert "not valid Unicode" in rejected["line 2"]
    assert "not a file" in rejected["line 5"]
