"""Conditions on scores agree with Python, and say nothing but conditions."""

import random

import pytest

from data.keep import Keep

SCORES = {"motion": 1.5, "cuts": 0, "brightness": 90.0}


def random_condition(rng, depth=0):
    if depth == 3 or rng.random() < 0.3:
        terms = [rng.choice([*SCORES, "1", "0.5", "-2", "90.0"]) for _ in range(3)]
        signs = [rng.choice(["<", "<=", ">", ">=", "==", "!="]) for _ in range(2)]
        return f"{terms[0]} {signs[0]} {terms[1]} {signs[1]} {terms[2]}"
    left, right = random_condition(rng, depth + 1), random_condition(rng, depth + 1)
    return rng.choice([f"({left}) and ({right})", f"({left}) or ({right})", f"not ({left})"])


def test_conditions_mean_what_python_says():
    rng = random.Random(0)
    conditions = [random_condition(rng) for _ in range(300)]
    truths = [bool(eval(condition, {}, dict(SCORES))) for condition in conditions]
    assert [Keep(condition)(SCORES) for condition in conditions] == truths
    assert 50 < sum(truths) < 250


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('true')",
        "motion.__class__",
        "motion ** 9",
        "[motion]",
        "motion if cuts else 1",
        "lambda: 1",
        "motion in cuts",
        "'text' == motion",
        "(motion := 3)",
        "motion >",
        "",
        "\0",
        "not " * 300,
        "(" * 400,
        "f'{motion}'",
        "1 < 2j",
        "x" * 1001,
    ],
)
def test_anything_else_is_refused(expression):
    with pytest.raises(ValueError, match=r"condition|not understood"):
        Keep(expression)


def test_an_unknown_score_is_named():
    with pytest.raises(
        ValueError, match=r"asks for text_area, but the scores are brightness, cuts"
    ):
        Keep("text_area < 0.1")(SCORES)
