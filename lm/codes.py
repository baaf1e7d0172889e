"""A vector for each code of the tokenizer."""

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class CodeTable(nn.Module):
    """One vector a code; codes of one FSQ level share a part of it.

    Code v with the digits v_1 ... v_K has the vector own[v] + sum_k part_k[v_k]. A level occurs in
    many codes, so its part is learnt from many more tokens than a code of its own.

    Args:
        codebook_size: Codes.
        width: Length of a vector.
        std: Deviation of the vectors at the start.
        levels: FSQ levels of the tokenizer, the first one running fastest; None where codes have
            no parts.
    """

    digits: Tensor

    def __init__(
        self, codebook_size: int, width: int, std: float, levels: list[int] | None = None
    ) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.zeros(codebook_size, width))
        self.parts = None
        if levels is None:
            nn.init.normal_(self.own, std=std)
            return
        if math.prod(levels) != codebook_size:
            raise ValueError(
                f"levels {levels} make {math.prod(levels)} codes, but codebook_size is "
                f"{codebook_size}; give the levels of the tokenizer"
            )
        self.parts = nn.Parameter(torch.empty(sum(levels), width))
        nn.init.normal_(self.parts, std=std / math.sqrt(len(levels)))
        self.register_buffer("digits", _digits(codebook_size, levels), persistent=False)

    def forward(self) -> Float[Tensor, "V D"]:
        """Return the vectors of all codes."""
        if self.parts is None:
            return self.own
        # Indexing would add gradients in an order that changes from call to call.
        return self.own + F.embedding(self.digits, self.parts).sum(dim=1)

    def read(self, codes: Int[Tensor, "*N"]) -> Float[Tensor, "*N D"]:
        """Return the vectors of codes."""
        return F.embedding(codes, self())

    def reader(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """Return `read` for weights that stay as they are."""
        return partial(F.embedding, weight=self().to(dtype))


def _digits(codebook_size: int, levels: list[int]) -> Tensor:
    """Return the rows of `parts` that each code is made of, V x K."""
    codes, rows, first, basis = torch.arange(codebook_size), [], 0, 1
    for level in levels:
        rows.append(first + codes // basis % level)
        first, basis = first + level, basis * level
    return torch.stack(rows, dim=1)
