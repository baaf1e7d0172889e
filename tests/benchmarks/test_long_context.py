import json
import math

import pytest

from benchmarks import long_context


def test_a_step_is_one_of_as_many_tokens_and_starts_at_chance(tmp_path, monkeypatch):
    monkeypatch.setattr(long_context, "FRAMES", 3)
    monkeypatch.setattr(long_context, "apart", long_context.step)
    long_context.main(["--sides", "2", "4", "--json", str(tmp_path / "rows.json")])
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["tokens"] for row in rows] == [12, 48]
    for row in rows:
        assert row["nats"] == pytest.approx(math.log(long_context.CODES), rel=0.1)
        assert row["seconds"] > 0
        assert 0.1 < row["peak_gb"] < 24
