"""Long tests of faults, memory and cost; make soak runs them."""

import json
import random
import subprocess
import sys
import warnings
from itertools import pairwise

import pytest

from benchmarks.tokenizer import resident
from data.folder import VideoFolder
from data.shapes import Shapes
from data.video import VideoError, write_video

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]


def test_sampling_again_and_again_needs_no_more_memory(pipe):
    peaks = []
    for _ in range(30):
        pipe.generate(["a red circle moving left"] * 4, num_frames=33)
        peaks.append(resident())
    assert peaks[-1] - peaks[4] < 0.03  # GB


STREAM = """
import json, time, torch
from benchmarks.tokenizer import resident
from tokenizer import FSQ
from tokenizer.presets import preset
torch.set_num_threads(1)  # then processor time is the cost, whatever else the cores do
tokenizer = preset("{name}", FSQ([8, 8, 8, 5])).eval()
camera = (torch.rand(1, 3, 1, 256, 256) * 2 - 1 for _ in range(1000))
frames, marks = 0, []
for clip in tokenizer.stream_decode(tokenizer.stream_encode(camera, pad=True)):
    frames += clip.shape[2]
    if frames % 100 == 1:
        marks.append(time.process_time())
print(json.dumps([frames, marks, resident()]))
"""


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_a_thousand_frames_fit_in_two_gigabytes_and_the_last_cost_what_the_first_do(name):
    script = STREAM.format(name=name)
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    frames, marks, peak = json.loads(result.stdout)
    assert frames == 1001
    assert peak < 2  # GB
    costs = [end - begin for begin, end in pairwise(marks)]  # of 100 frames each
    assert len(costs) == 10
    assert costs[-1] <= 1.2 * costs[1], costs


def test_no_damaged_video_ends_the_process(tmp_path):
    rng = random.Random(0)
    for i in range(120):
        path = tmp_path / f"{i:03d}.mp4"
        write_video(path, Shapes(200).read(i, 17).frames, 8.0)
        if i % 2:
            content = bytearray(path.read_bytes())
            for _ in range(rng.choice([1, 10, 100])):
                content[rng.randrange(len(content))] = rng.randrange(256)
            path.write_bytes(content[: rng.randrange(len(content) // 2, len(content) + 1)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = VideoFolder(tmp_path)
    whole = {f"{i:03d}.mp4" for i in range(0, 120, 2)}
    assert not whole & source.skipped.keys()
    for i in range(len(source)):
        try:
            assert source.read(i, 17).frames.shape == (17, 64, 64, 3)
        except VideoError:
            pytest.fail("a video that was accepted cannot be read")
