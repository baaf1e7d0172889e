import json
import time
from threading import Barrier

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import tokenizer, tokenizer_study
from data import Shapes
from tokenizer import FSQ, KL, Tokenizer
from tokenizer.presets import preset


def test_rows_are_written_with_their_keys(tmp_path):
    path = tmp_path / "rows.json"
    options = ["--models", "tiny", "--rounds", "2", "--size", "5", "32", "32"]
    tokenizer.main([*options, "--json", str(path)])
    (row,) = json.loads(path.read_text())
    assert row["name"] == "tiny"
    assert 5e6 < row["parameters"] < 10e6
    assert 0 < row["encode_seconds"] < 60
    assert 0 < row["decode_seconds"] < 60
    assert 0.1 < row["peak_gb"] < 8


def test_each_stage_is_counted_right():
    model, clip = preset("tiny", FSQ([5, 5])).eval(), torch.zeros(1, 3, 5, 32, 32)
    rows = {row.name.split()[0]: row for row in tokenizer.stages(model, clip)}
    first = rows["encoder.conv_in"]
    assert first.parameters == 96 * 128 * 9 + 128
    assert first.gflop * 1e9 == 2 * 96 * 128 * 9 * (3 * 8 * 8)
    assert first.megabytes * 1e6 == (96 + 128) * (3 * 8 * 8) * 4
    for stem in ("encoder.stem", "decoder.stem"):  # which runs backwards
        assert rows[stem].gflop * 1e9 == 2 * 96 * 96 * (3 * 8 * 8)
    assert all(0 < row.milliseconds < 1e4 for row in rows.values())
    assert sum(row.parameters for row in rows.values()) == sum(
        p.numel() for p in model.parameters()
    )
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.decode(model.encode(clip))
    assert sum(row.gflop for row in rows.values()) * 1e9 == pytest.approx(counter.get_total_flops())


def test_memory_counts_what_is_alive_at_once():
    with tokenizer.Memory() as memory:
        kept = torch.zeros(1000)  # 4 kB
        for _ in range(3):
            kept.view(10, 100).add(1).mul_(2)  # a view and what is done in place add none
    assert (memory.alive, memory.peak) == (4000, 8000)


@pytest.mark.parametrize("bottleneck", [FSQ([5, 5]), KL(3)], ids=["FSQ", "KL"])
def test_a_study_row_says_what_it_measured(bottleneck):
    model = Tokenizer(
        bottleneck, channels=[16, 32], encoder_depths=[1, 1], decoder_depths=[1, 1]
    ).eval()
    row = tokenizer_study.measure(model, Shapes(split="val", num_clips=2))
    run = tokenizer_study.Run("shapes", 64, "tiny", "FSQ", 1)
    table = tokenizer_study.markdown([{**run._asdict(), **row}], "facts")
    if isinstance(bottleneck, FSQ):
        assert row["tokens"] == 2 * 5 * 8 * 8
        assert row["rate"] == pytest.approx(4.6439 * 320 / (17 * 64 * 64), rel=1e-4)
        assert "bits/pixel" in table
    else:
        assert "nats/pixel" in table
        assert "of 3 dims active" in table


def test_a_study_run_is_a_published_recipe_with_another_tokenizer(tmp_path):
    run = tokenizer_study.Run("videos", 128, "small", "LFQ", 7)
    config = run.config(tmp_path / "videos")
    model = config["model"]["init_args"]
    assert model["max_steps"] == 7
    assert model["tokenizer"]["quantizer"]["class_path"] == "LFQ"
    assert model["quantizer_anneal_steps"] == 3
    other = run._replace(bottleneck="FSQ").config(tmp_path / "videos")["model"]["init_args"]
    assert "quantizer_anneal_steps" not in other
    assert [stage["batch_size"] for stage in config["data"]["stages"]] == [8, 2, 2]
    assert config["data"]["val"]["init_args"]["path"] == str(tmp_path / "videos")


def test_sizes_are_compared_without_a_quantizer_and_in_equal_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(
        tokenizer_study,
        "train",
        lambda todo, out, videos: pytest.fail(str([run.name for run in todo])),
    )
    with pytest.raises(pytest.fail.Exception, match="videos-32-small-KL-16-9', 'videos-32-base-KL"):
        tokenizer_study.main(["--sizes", "--size-steps", "9", "--videos", str(tmp_path)])
    small, base = (run.config(tmp_path) for run in tokenizer_study.sizes(9))
    assert [stage["batch_size"] for stage in small["data"]["stages"]] == [16, 4]
    assert small["data"] == base["data"]
    networks = [config["model"]["init_args"] for config in (small, base)]
    assert [one["tokenizer"].pop("channels")[0] for one in networks] == [96, 192]
    assert [one["recipe"].pop("learning_rate") for one in networks] == [1e-3, 5e-4]
    with pytest.raises(SystemExit, match="give a folder of them"):
        tokenizer_study.main(["--sizes"])


def test_a_study_trains_two_at_a_time_and_begins_no_other_when_one_stopped(tmp_path, monkeypatch):
    begun, both = [], Barrier(2, timeout=20)

    def trained(config, root, threads):
        begun.append(root.name)
        if len(begun) > 2:
            time.sleep(0.2)
        else:
            both.wait()  # neither goes on alone
        if root.name == "videos-64-base-FSQ-64000-2":
            raise SystemExit("stopped")
        return 1.0

    monkeypatch.setattr(tokenizer_study, "train_once", trained)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    todo = tokenizer_study.runs(tmp_path, 1, 2)
    with pytest.raises(SystemExit, match="stopped"):
        tokenizer_study.train(todo, tmp_path, tmp_path)
    assert sorted(begun[:2]) == ["videos-64-base-FSQ-64000-2", "videos-64-small-FSQ-64000-2"]
    assert len(begun) < len(todo)
    monkeypatch.setattr(tokenizer_study, "train_once", lambda *_: 2.0)
    assert tokenizer_study.train(todo, tmp_path, tmp_path) == 20.0
