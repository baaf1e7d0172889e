import pytest
import torch

import sample
from data.video import decode_clip, write_video
from lm import AutoregressivePrior, TextTokenizer, Transformer
from pipeline import VideoPipeline

PROMPT = "a red circle moving left"


@pytest.fixture
def model(tiny_tokenizer, tmp_path) -> str:
    torch.manual_seed(0)
    transformer = Transformer(width=32, depth=1, num_heads=2)
    prior = AutoregressivePrior(transformer, codebook_size=200, grid=[5, 4, 4])
    text = TextTokenizer.train([PROMPT], 320)
    folder = tmp_path / "model"
    VideoPipeline(tiny_tokenizer, 32, 8.0, prior, text).save_pretrained(folder)
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
    with pytest.raises(ValueError, match="has 9 frames"):
        sample.main([model, *arguments[:2], "--context-frames", "13"])
