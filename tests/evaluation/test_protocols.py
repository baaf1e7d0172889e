"""Protocols are values: the counts of their papers, and the one rule of lengths."""

from dataclasses import replace

import pytest

from evaluation.lengths import last_length, next_length
from evaluation.protocols import PROTOCOLS, find
from evaluation.published import PUBLISHED


@pytest.mark.parametrize(
    ("name", "given", "frames", "real", "samples"),
    [
        ("bair", 1, 16, 256, 25_600),
        ("bair-videogpt", 1, 16, 256, 2_560),
        ("bair-debiased", 1, 16, 3_840, 25_600),
        ("kinetics600", 5, 16, 50_000, 50_000),
        ("ucf101", 0, 16, 10_000, 10_000),
        ("ucf101-tats", 0, 16, 2_048, 2_048),
        ("ucf101-styleganv", 0, 16, 2_048, 2_048),
        ("moving-mnist", 10, 20, 10_000, 10_000),
        ("captioned-shapes", 5, 17, 256, 256),
    ],
)
def test_counts_are_those_of_the_papers(name, given, frames, real, samples):
    protocol = find(name)
    assert (protocol.context_frames, protocol.num_frames) == (given, frames)
    assert protocol.num_clips is not None
    assert protocol.num_clips * protocol.windows == real
    assert protocol.num_clips * protocol.samples == samples


def test_the_variants_of_a_benchmark_differ_in_what_decides_the_number():
    bair, debiased, videogpt = (find(f"bair{suffix}") for suffix in ("", "-debiased", "-videogpt"))
    assert bair == replace(debiased, windows=1, name=bair.name, source=bair.source)
    assert (bair.sets, videogpt.sets) == ("pooled", "per_trial")
    conventions = {(p.resize, p.covariance) for n, p in PROTOCOLS.items() if "ucf101" in n}
    assert ("script", "population") in conventions
    assert ("stretch", "unbiased") in conventions


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_lengths_are_the_nearest_admissible_ones(stride):
    admissible = [1 + stride * k for k in range(60)]
    for frames in range(1, 50):
        assert next_length(frames, stride) == min(a for a in admissible if a >= frames)
        assert last_length(frames, stride) == max(a for a in admissible if a <= frames)


def test_published_numbers_belong_to_protocols():
    assert {*PUBLISHED} <= {*PROTOCOLS}
    for rows in PUBLISHED.values():
        assert len({row.method for row in rows}) == len(rows)
        assert {row.figure for row in rows} == {"fvd"}


def test_a_contradiction_and_an_unknown_name_are_refused():
    with pytest.raises(ValueError, match="context_frames is 16 of 16"):
        replace(find("bair"), context_frames=16)
    with pytest.raises(ValueError, match="prediction needs some"):
        replace(find("ucf101"), context_frames=2)
    with pytest.raises(ValueError, match="'ucf' is no protocol; known are bair,"):
        find("ucf")
