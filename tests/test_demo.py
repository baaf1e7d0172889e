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
