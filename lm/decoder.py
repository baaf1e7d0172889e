"""An autoregressive network that makes one token after another."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from lm.factors import Choice, DepthHead
from lm.packing import Quantization, pack, packed
from lm.transformer import Masks, Transformer


class Decoder:
    """Keys and values of what was read, and the network that reads the next vectors.

    Everything that a step needs is laid out before: weights in the order in which they are read
    fastest, keys and values in buffers of their final size, the table of rotary positions.

    Args:
        transformer: Whose weights are used; not kept in step with later changes.
        head: Predicts a token from a state, as a table or as a network.
        read: From tokens to vectors.
        x: What is read first; for guidance the batch, then again its other side.
        rotary: Of all positions that there will be.
        mask: Who sees whom among all of them; layers in turn, where it is a list.
        quantize: "int8" for weights of one byte.
    """

    def __init__(
        self,
        transformer: Transformer,
        head: Float[Tensor, "V D"] | DepthHead,
        read: Callable[[Tensor], Tensor],
        x: Float[Tensor, "B n D"],
        rotary: Float[Tensor, "two N head_dim"],
        mask: Masks,
        quantize: Quantization | None,
    ) -> None:
        dtype = x.dtype
        self.network = packed(transformer, dtype, quantize)
        self.head: nn.Module | DepthHead
        if isinstance(head, DepthHead):
            self.head = packed(head, dtype, quantize)
        else:
            self.head = pack(head.to(dtype), quantize)
        self.read, self.x, self.mask = read, x, mask
        self.rotary = rotary.to(dtype)
        self.cache = self.network.new_cache(len(x), rotary.shape[1], x)

    def step(
        self,
        uniforms: Float[Tensor, "B K"],
        choose: Choice,
        given: Float[Tensor, "B2 n D"] | None = None,
    ) -> Int[Tensor, "B"]:
        """Return the next token of each sample.

        Args:
            uniforms: What each draw depends on.
            choose: From logits and uniform numbers to tokens.
            given: Vectors that stand behind the token and are not predicted.
        """
        start = self.cache.length
        rotary = self.rotary[:, start : start + self.x.shape[1]]
        states = self.network(self.x, rotary, self._mask(), self.cache)[:, -1]
        if isinstance(self.head, DepthHead):
            tokens = self.head.draw(states, uniforms, choose)
        else:
            tokens = choose(self.head(states), uniforms[:, 0])
        self.x = self.read(tokens)[:, None].repeat(len(self.x) // len(tokens), 1, 1)
        if given is not None:
            self.x = torch.cat([self.x, given], dim=1)
        return tokens

    def _mask(self) -> Masks:
        """Return whom the new positions see."""
        start, new = self.cache.length, self.x.shape[1]
        end = start + new
        if isinstance(self.mask, list):
            return [mask[start:end, :end] for mask in self.mask]
        if start == 0:
            return self.mask[:end, :end] if isinstance(self.mask, Tensor) else self.mask
        if new == 1:
            return "causal"
        whole = torch.ones(new, end, dtype=torch.bool, device=self.x.device)
        return whole.tril(start)
