"""What the demo decides before it trains."""

import pytest

import demo


def test_the_first_training_of_a_process_does_not_count(monkeypatch):
    """It took so long once that a step seemed to take a tenth of its time."""
    seconds, asked = iter([60.0, 5.0, 25.0]), []
    monkeypatch.setattr(
        demo, "_train_briefly", lambda arguments, steps: asked.append(steps) or next(seconds)
    )
    assert demo.probe([]) == pytest.approx(1.0)
    assert asked == [4, 4, 24]


def test_a_checkpoint_of_another_training_is_not_gone_on_from(monkeypatch, tmp_path):
    """Only what this run of the demo has begun itself."""
    asked = []

    class Trained:
        returncode = 1

        def __init__(self, command):
            asked.append(command)

        def wait(self):
            last = tmp_path / "out" / "tokenizer" / "checkpoints" / "last.ckpt"
            last.parent.mkdir(parents=True, exist_ok=True)
            last.write_bytes(b"")

    monkeypatch.setattr(demo.subprocess, "Popen", Trained)
    Trained([]).wait()  # of a train.py that was started by hand
    asked.clear()
    for _ in range(2):
        run = demo.Demo(tmp_path / "out", 5.0, None)
        run.store({"tokenizer_steps": 10})
        with pytest.raises(SystemExit, match="the same command goes on from there"):
            run.train("tokenizer")
    assert ["--ckpt_path=last" in command for command in asked] == [False, True]
