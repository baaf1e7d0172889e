import pytest
import torch

import sample
from data.video import decode_clip, write_video

PROMPT = "a red circle moving left"


@pytest.fixture
def model(pipe, tmp_path) -> str:
    folder = tmp_path / "model"
    pipe.save_pretrained(folder)
    return str(folder)


def test_prompts_become_videos_and_a_sheet(model, tmp_path):
    out = tmp_path / "out"
    sample.main([model, "--prompt", PROMPT, "--num", "2", "--frames", "5", "--out", str(out)])
    assert sorted(p.name for p in out.iterdir()) == [
        "000.gif",
        "000.mp4",
        "001.gif",
        "001.mp4",
        "samples.png",
    ]
    assert decode_clip(out / "001.mp4").shape == (5, 32, 32, 3)


def test_a_video_is_continued(model, tmp_path):
    clip = torch.randint(256, (9, 48, 40, 3), dtype=torch.uint8)
    write_video(tmp_path / "clip.mp4", clip, 8.0)
    arguments = ["--context", str(tmp_path / "clip.mp4"), "--context-frames", "5"]
    sample.main([model, *arguments, "--frames", "21", "--out", str(tmp_path / "out")])
    assert len(decode_clip(tmp_path / "out" / "000.mp4")) == 21
    # Frames of a video twice as fast as the model are brought to its rate.
    write_video(tmp_path / "fast.mp4", clip, 16.0)
    with pytest.raises(ValueError, match="has 5 frames at 8 a second"):
        sample.main([model, "--context", str(tmp_path / "fast.mp4"), "--context-frames", "9"])
    with pytest.raises(ValueError, match="has 9 frames"):
        sample.main([model, *arguments[:2], "--context-frames", "13"])
