"""From the rows of all clips to figures with intervals."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float64
from torch import Tensor

from evaluation.bootstrap import Figure as Weighted
from evaluation.bootstrap import estimate, weighted_mean
from evaluation.codebook import usage
from evaluation.frechet import feature_distance
from evaluation.inception_score import inception_score
from evaluation.kernel import KernelDistance
from evaluation.measures import Figure, Measures
from evaluation.protocol import Protocol
from evaluation.run import REAL, Extractors

MAX_KERNEL_CLIPS = 2048  # clips a side whose kernels are held in memory
Rows = Mapping[tuple[str, str], Tensor]


class Summary:
    """The figures of every system.

    Args:
        protocol: What was run.
        measures: What was read off the clips.
        extractors: What described them.
        rows: The rows of all units, by (system, what was read).
        num_replicates: Draws of the bootstrap.
        seed: Of the bootstrap.
        codebook_size: Of the model's tokenizer, if there is one.
    """

    def __init__(
        self,
        protocol: Protocol,
        measures: Measures,
        extractors: Extractors,
        rows: Rows,
        *,
        num_replicates: int = 200,
        seed: int = 0,
        codebook_size: int | None = None,
    ) -> None:
        self.protocol, self.measures, self.extractors = protocol, measures, extractors
        self.rows, self.codebook_size = rows, codebook_size
        self.num_replicates, self.seed = num_replicates, seed
        self.best = protocol.frames == "best"
        self.num_units = len(rows[REAL, "video"])

    def system(self, name: str) -> dict[str, Any]:
        """Return figures, curves over frames and the score of each clip."""
        curves, scores = {}, {}
        figures = {label: self._interval(*pair) for label, pair in self._set_figures(name).items()}
        for figure in self.measures.figures:
            if (name, figure.rows) in self.rows:
                rows, label = self._samples(name, figure), figure.name
                scores[label] = figure.scores(rows, self.best).tolist()
                figures[label] = self._estimate(partial(figure.value, rows), figure)
                if figure.curve is not None:
                    curves[label] = self._estimate(partial(figure.frames, rows), figure)
        return {"figures": figures, "curves": curves, "scores": scores}

    def _estimate(self, value: Callable[..., Tensor], figure: Figure) -> dict[str, Any]:
        return self._interval(lambda w: value(w, self.best), figure.higher_is_better)

    def _samples(self, name: str, figure: Figure) -> Float64[Tensor, "N S K"]:
        rows = self.rows[name, figure.rows]
        drawn = self.rows[name, "video"].shape[1] // self._num_features()
        return rearrange(rows, "N (S K) -> N S K", S=1 if name == REAL else drawn)

    def _num_features(self) -> int:
        return self.rows[REAL, "video"].shape[1] // self.protocol.windows

    def _set_figures(self, name: str) -> dict[str, tuple[Weighted, bool]]:
        """Return what belongs to all clips of a system together, and whether more is better."""
        found: dict[str, tuple[Weighted, bool]] = {}
        if (name, "nearest") in self.rows:
            rows = self.rows[name, "nearest"]
            found["nearest_train_distance"] = (lambda w: weighted_mean(rows.mean(1), w), True)
        if name != REAL:
            found |= self._distances(name)
        if (name, "classes") in self.rows:
            logits, repeat = self._flat(name, "classes", self._width(self.extractors.classifier))
            label = f"inception_score_{self.extractors.classifier.extractor_id}"  # type: ignore[union-attr]
            found[label] = (lambda w: inception_score(logits, w.repeat_interleave(repeat)), True)
        return found | self._token_figures(name)

    def _distances(self, name: str) -> dict[str, tuple[Weighted, bool]]:
        video, extractor = self._num_features(), self.extractors.video
        proved = getattr(extractor, "is_i3d", False)
        names = (
            ("fvd", "kvd")
            if proved
            else tuple(f"{kind}_{extractor.extractor_id}" for kind in ("frechet", "kernel"))
        )
        found: dict[str, tuple[Weighted, bool]] = {
            names[0]: (self._frechet(name, "video", video), False),
            names[1]: (self._kernel(name, video), False),
        }
        if (name, "frames") in self.rows:
            width = self._width(self.extractors.frames)
            label = f"frechet_frame_{self.extractors.frames.extractor_id}"  # type: ignore[union-attr]
            found[label] = (self._frechet(name, "frames", width), False)
        return found

    def _frechet(self, name: str, what: str, width: int) -> Weighted:
        real, windows = self._flat(REAL, what, width)
        fake, rows = self._flat(name, what, width)
        kind = self.protocol.covariance
        samples = self._flat(name, "video", self._num_features())[1]
        if self.protocol.sets == "pooled" or samples == 1:
            return lambda w: feature_distance(
                real, fake, w.repeat_interleave(windows), w.repeat_interleave(rows), kind
            )
        each = rows // samples  # frames of a sample
        trials = rearrange(fake, "(N S T) D -> S (N T) D", S=samples, T=each)
        return lambda w: torch.stack(
            [
                feature_distance(
                    real, one, w.repeat_interleave(windows), w.repeat_interleave(each), kind
                )
                for one in trials
            ]
        ).mean()

    def _kernel(self, name: str, width: int) -> Weighted:
        """Compare 2,048 clips of each side: the first of every unit, then the second of each."""
        (real, windows), (fake, samples) = (
            self._flat(side, "video", width) for side in (REAL, name)
        )
        first, second = (
            torch.arange(self.num_units * each).view(-1, each).T.flatten()[:MAX_KERNEL_CLIPS]
            for each in (windows, samples)
        )
        distance = KernelDistance(real[first], fake[second])
        return lambda w: distance(
            w.repeat_interleave(windows)[first], w.repeat_interleave(samples)[second]
        )

    def _token_figures(self, name: str) -> dict[str, tuple[Weighted, bool]]:
        found: dict[str, tuple[Weighted, bool]] = {}
        if (name, "tokens") in self.rows and self.codebook_size is not None:
            tokens, size = self.rows[name, "tokens"], self.codebook_size
            for field in ("share", "perplexity", "p10", "p90"):
                found[f"code_{'usage' if field == 'share' else field}"] = (
                    lambda w, f=field: _of_codes(tokens, w, size, f),
                    True,
                )
        for kind in ("bits", "pseudo_bits"):
            if (name, kind) in self.rows:
                found |= self._bits(name, kind)
        return found

    def _bits(self, name: str, kind: str) -> dict[str, tuple[Weighted, bool]]:
        """Bits of the latent frames that hold predicted frames, per token and per pixel."""
        bits, facts = self.rows[name, kind], self.measures.token_facts
        assert facts is not None
        first = 0 if not self.measures.first else 1 + (self.measures.first - 1) // facts.stride
        told = bits[:, first:].sum(1)
        latents = bits.shape[1] - first
        pixels = latents * facts.stride - (0 if first else facts.stride - 1)
        prefix = "" if kind == "bits" else "pseudo_"
        return {
            f"{prefix}bits_per_token": (
                lambda w: weighted_mean(told, w) / (latents * facts.tokens_per_latent),
                False,
            ),
            f"{prefix}bits_per_pixel": (
                lambda w: weighted_mean(told, w) / (pixels * facts.size**2),
                False,
            ),
        }

    def _flat(self, name: str, what: str, width: int) -> tuple[Tensor, int]:
        """Return one row a clip or frame, and how many of them a unit has."""
        rows = self.rows[name, what]
        return rearrange(rows, "N (S D) -> (N S) D", D=width), rows.shape[1] // width

    def _width(self, extractor: Any) -> int:
        return int(extractor.num_features)

    def _interval(self, value: Weighted, higher: bool) -> dict[str, Any]:
        result = estimate(value, self.num_units, num_replicates=self.num_replicates, seed=self.seed)
        numbers = {key: number.tolist() for key, number in result._asdict().items()}
        return numbers | {"higher_is_better": higher}


def _of_codes(tokens: Tensor, weights: Tensor, size: int, field: str) -> Tensor:
    spread = weights.repeat_interleave(tokens.shape[1])
    histogram = torch.bincount(tokens.flatten(), weights=spread, minlength=size)
    return torch.tensor(getattr(usage(histogram), field), dtype=torch.float64)
