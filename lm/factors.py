"""Large codebooks as short sequences of sub-tokens, of which the likelihood stays exact.

A code of 2^18 is two digits of 2^9: log p(code) = log p(digit_1) + log p(digit_2 | digit_1). The
digits of one position are predicted by a small transformer of their own, as in Open-MAGVIT2 (Luo et
al. 2024, arXiv 2409.04410); the sequence of the large one is as long as without.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from layers.linear import linear
from lm.loss import cross_entropy
from lm.transformer import Transformer

Choice = Callable[[Tensor, Tensor], Tensor]
"""From logits and a uniform number a sample to a class a sample."""


class FactorTable(nn.Module):
    """The vector of a code is the sum of the vectors of its digits.

    Args:
        factors: Size of each digit, the first one running fastest.
        width: Length of a vector.
        std: Deviation of the vectors at the start.
    """

    def __init__(self, factors: list[int], width: int, std: float) -> None:
        super().__init__()
        self.factors = factors
        self.parts = nn.Parameter(torch.empty(sum(factors), width))
        nn.init.normal_(self.parts, std=std / math.sqrt(len(factors)))

    def digits(self, codes: Int[Tensor, "*N"]) -> Int[Tensor, "*N K"]:
        """Return the digits of codes."""
        digits = []
        for factor in self.factors:
            digits.append(codes % factor)
            codes = codes // factor
        return torch.stack(digits, dim=-1)

    def join(self, digits: Int[Tensor, "*N K"]) -> Int[Tensor, "*N"]:
        """Return the codes of digits."""
        codes = torch.zeros_like(digits[..., 0])
        for place in reversed(range(len(self.factors))):
            codes = codes * self.factors[place] + digits[..., place]
        return codes

    def tables(self) -> tuple[Float[Tensor, "F D"], ...]:
        """Return the vectors of each digit's classes."""
        return self.parts.split(self.factors)

    def vectors(self, digits: Int[Tensor, "*N K"]) -> Float[Tensor, "*N K D"]:
        """Return the vector of each digit."""
        columns = zip(digits.unbind(-1), self.tables(), strict=True)
        return torch.stack([F.embedding(digit, table) for digit, table in columns], dim=-2)

    def forward(self) -> Float[Tensor, "V D"]:
        """Return the vectors of all codes."""
        return self.read(torch.arange(math.prod(self.factors), device=self.parts.device))

    def read(self, codes: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        """Return the vectors of codes."""
        return self.vectors(self.digits(codes)).sum(dim=-2)

    def reader(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return `read` in another type."""
        return lambda codes: self.read(codes).to(dtype)


class DepthHead(nn.Module):
    """Predicts the digits of a code one after another from the state before it.

    Args:
        factors: Size of each digit.
        width: Channels of the states.
        num_heads: Heads of the small transformer.
        depth: Its blocks.
    """

    def __init__(self, factors: list[int], width: int, num_heads: int, depth: int = 2) -> None:
        super().__init__()
        self.given = FactorTable(factors, width, 0.5)
        self.network = Transformer(width, depth, num_heads)
        self.predicted = FactorTable(factors, width, width**-0.5)

    def nats(self, states: Float[Tensor, "N D"], codes: Int[Tensor, "N"]) -> Float[Tensor, "N"]:
        """Return -log p(code | state) in nats: the sum over the digits, each given those before."""
        digits = self.given.digits(codes)
        x = torch.cat([states[:, None], self.given.vectors(digits)[:, :-1]], dim=1)
        states = self._states(x)
        parts = zip(states.unbind(1), self.predicted.tables(), digits.unbind(1), strict=True)
        return sum((cross_entropy(*part) for part in parts), torch.zeros_like(states[:, 0, 0]))

    def draw(
        self, states: Float[Tensor, "B2 D"], uniforms: Float[Tensor, "B K"], choose: Choice
    ) -> Int[Tensor, "B"]:
        """Return a code a sample; the states may be of two sides, which `choose` makes one."""
        x, digits = states[:, None], []
        tables = zip(self.given.tables(), self.predicted.tables(), strict=True)
        for place, (given, predicted) in enumerate(tables):
            logits = linear(self._states(x)[:, -1], predicted.to(x.dtype))
            digits.append(choose(logits, uniforms[:, place]))
            vector = F.embedding(digits[-1], given.to(x.dtype))
            vector = vector.repeat(len(states) // len(vector), 1)
            x = torch.cat([x, vector[:, None]], dim=1)
        return self.given.join(torch.stack(digits, dim=-1))

    def _states(self, x: Float[Tensor, "N k D"]) -> Float[Tensor, "N k D"]:
        places = torch.arange(x.shape[1], device=x.device)[:, None].expand(-1, 3)
        return self.network(x, self.network.rotary_table(places))
