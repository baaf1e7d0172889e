"""Bottlenecks between encoder and decoder.

Three quantizers turn latents into integers and back: FSQ (Mentzer et al. 2023, arXiv 2309.15505,
through vector-quantize-pytorch), LFQ (Yu et al. 2023, arXiv 2310.05737) and VQ (van den Oord et al.
2017, arXiv 1711.00937). KL (Kingma and Welling 2013, arXiv 1312.6114) stays continuous.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from vector_quantize_pytorch import finite_scalar_quantization

from layers.precision import whole_float32
from layers.processes import all_rows
from tokenizer.bottleneck import Bottleneck, Quantized, Quantizer
from tokenizer.entropy import batch_entropy, digit_chances, sample_entropy

FADED = 1e-20  # a count behind which a code stays where it is
ACTIVE = 0.01  # variance of the mean over the data: Burda et al. 2015, arXiv 1509.00519


class DigitQuantizer(Quantizer):
    """Quantizer whose codes are combinations of digits, with a loss that makes all of them useful.

    The loss makes each position sure of its code and the codes of a batch equally likely:
    weight (E_x H(p(c | z)) - diversity H(E_x p(c | z))), with p the softmax over all codes of
    -|z - c|^2 / temperature (Yu et al. 2023, arXiv 2310.05737). Both entropies are exact, the
    second one over the batches of all processes.
    """

    entropy_weight: float
    diversity: float
    temperature: float
    for_training = ("entropy_weight", "diversity", "temperature", "commitment_weight")

    def entropy_loss(
        self, latents: Float[Tensor, "B D t h w"], levels: list[Float[Tensor, "_"]]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """Return the loss, 0 outside training, and both entropies in nats.

        Args:
            latents: On the scale of the levels.
            levels: Values of each digit.
        """
        if not self.training or not self.entropy_weight:
            return latents.new_zeros(()), {}
        rows = rearrange(latents, "b d t h w -> (b t h w) d")
        chances = digit_chances(rows, levels, self.temperature)
        sure, spread = sample_entropy(chances), batch_entropy(chances)
        stats = {"sample_entropy": sure.detach(), "batch_entropy": spread.detach()}
        return self.entropy_weight * (sure - self.diversity * spread), stats


class FSQ(DigitQuantizer):
    """Finite scalar quantization: each latent dimension is rounded to one of a few levels.

    Args:
        levels: Number of levels of each dimension, each at least 3; their product is the codebook.
        entropy_weight: Weight of the entropies in nats; 0 leaves them out.
        diversity: Weight of the batch entropy among them.
        temperature: Of the softmax, in squared steps between levels.
    """

    def __init__(
        self,
        levels: list[int],
        entropy_weight: float = 0.0,
        diversity: float = 1.0,
        temperature: float = 0.5,
    ) -> None:
        super().__init__()
        if not levels or min(levels) < 3:
            raise ValueError(f"levels is {levels}, but FSQ needs at least 3 in each dimension")
        self.dim = self.input_dim = len(levels)
        self.levels, self.codebook_size = levels, math.prod(levels)
        self.entropy_weight, self.diversity = entropy_weight, diversity
        self.temperature = temperature
        with torch.device("cpu"):  # it reads its small tables, which a meta device does not have
            self.rounding = finite_scalar_quantization.FSQ(levels)

    def apply_to(self, latents: Float[Tensor, "B D t h w"]) -> Quantized:
        rounded, tokens = self.rounding(latents)
        grids = [
            torch.arange(-(n // 2), n - n // 2, device=latents.device).float() for n in self.levels
        ]
        return Quantized(rounded, tokens.long(), *self.entropy_loss(self.bound(latents), grids))

    def bound(self, latents: Float[Tensor, "B D t h w"]) -> Float[Tensor, "B D t h w"]:
        """Return what is rounded to the levels -(n // 2) ... (n - 1) // 2 (FSQ, section 3.1)."""
        levels = latents.new_tensor(self.levels).view(-1, 1, 1, 1)
        half, offset = (levels - 1) * (1 + 1e-3) / 2, (levels % 2 == 0) / 2
        return torch.tanh(latents + torch.atanh(offset / half)) * half - offset

    def lookup(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B D t h w"]:
        return self.rounding.indices_to_codes(tokens)


class LFQ(DigitQuantizer):
    """Lookup-free quantization: the signs of the latents are the bits of the token, first one 1.

    Args:
        bits: Latent dimensions, 1 to 18; 2^bits codes.
        entropy_weight: Weight of the entropies in nats.
        diversity: Weight of the batch entropy among them.
        commitment_weight: Weight of the squared distance between latents and codes.
        temperature: Of the softmax.
    """

    def __init__(
        self,
        bits: int,
        entropy_weight: float = 0.1,
        diversity: float = 1.0,
        commitment_weight: float = 0.25,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        if not 1 <= bits <= 18:
            raise ValueError(f"bits is {bits}, but LFQ takes 1 to 18: 2^18 = 262,144 codes")
        self.dim = self.input_dim = bits
        self.codebook_size = 2**bits
        self.entropy_weight, self.diversity = entropy_weight, diversity
        self.commitment_weight, self.temperature = commitment_weight, temperature

    def apply_to(self, latents: Float[Tensor, "B D t h w"]) -> Quantized:
        codes = torch.where(latents > 0, 1.0, -1.0)
        tokens = ((codes > 0) << self._places(latents)).sum(dim=1)
        loss, stats = self.entropy_loss(latents, [latents.new_tensor([-1.0, 1.0])] * self.dim)
        if self.training:
            loss = loss + self.commitment_weight * (latents - codes).square().mean()
        return Quantized(latents + (codes - latents).detach(), tokens, loss, stats)

    def lookup(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B D t h w"]:
        return ((tokens[:, None] >> self._places(tokens)) & 1).float() * 2 - 1

    def _places(self, like: Tensor) -> Int[Tensor, "D 1 1 1"]:
        return torch.arange(self.dim, device=like.device)[:, None, None, None]


class VQ(Quantizer):
    """Vector quantization: a codebook that follows the latents as a moving average.

    Codes that no latent chooses for long move onto latents of the batch; one that is chosen now and
    then, however seldom, stays. All of the state is in buffers, so a resumed run goes on with its
    codebook, and every process computes the same from the latents of all. In eval mode the codebook
    does not move.

    Args:
        codebook_size: Codes.
        dim: Channels of a code. Few are better than many: 4 to 16.
        l2: Compare directions only (Yu et al. 2021, arXiv 2110.04627).
        decay: Of the moving averages.
        commitment_weight: Weight of the distance between latents and codes.
        restart_share: A code is moved once so many steps passed without use that less than this
            share of its count is left. By default 69 steps at a decay of 0.99: a codebook settles
            within the first hundreds, and codes lost there are never found again. 0: never.
    """

    codebook: Tensor
    counts: Tensor
    sums: Tensor
    idle: Tensor
    updates: Tensor
    bookkeeping = ("idle",)
    for_training = ("decay", "commitment_weight", "restart_share")

    def __init__(
        self,
        codebook_size: int,
        dim: int = 8,
        l2: bool = False,
        decay: float = 0.99,
        commitment_weight: float = 0.25,
        restart_share: float = 0.5,
    ) -> None:
        super().__init__()
        if codebook_size < 2 or dim < 1:
            raise ValueError(
                f"codebook_size is {codebook_size} and dim {dim}, but VQ needs at least 2 and 1"
            )
        self.dim = self.input_dim = dim
        self.codebook_size, self.l2, self.decay = codebook_size, l2, decay
        self.commitment_weight, self.restart_share = commitment_weight, restart_share
        self.register_buffer("codebook", torch.zeros(codebook_size, dim))
        self.register_buffer("counts", torch.zeros(codebook_size))
        self.register_buffer("sums", torch.zeros(codebook_size, dim))
        self.register_buffer("idle", torch.zeros(codebook_size))  # steps since each was chosen
        self.register_buffer("updates", torch.tensor(0))  # 0: the codebook is still to be drawn
        self.register_load_state_dict_pre_hook(_add_idle)

    def apply_to(self, latents: Float[Tensor, "B D t h w"]) -> Quantized:
        b, _, t, h, _ = latents.shape
        rows = rearrange(latents, "b d t h w -> (b t h w) d")
        rows = F.normalize(rows, dim=1) if self.l2 else rows
        if self.training and self.updates == 0:
            self._start(all_rows(rows.detach()))
        indices: Tensor = self._nearest(rows.detach())  # type: ignore[call-arg]
        codes = self.codebook[indices]
        loss = self.commitment_weight * (rows - codes).square().mean() if self.training else 0.0
        if self.training:
            self._follow(all_rows(rows.detach()), all_rows(indices))
        straight = rearrange(
            rows + (codes - rows).detach(), "(b t h w) d -> b d t h w", b=b, t=t, h=h
        )
        tokens = rearrange(indices, "(b t h w) -> b t h w", b=b, t=t, h=h)
        return Quantized(straight, tokens, latents.new_zeros(()) + loss, {})

    @torch.compiler.disable  # it would not see the precision change
    def _nearest(self, rows: Float[Tensor, "N D"]) -> Int[Tensor, "N"]:
        """Return the nearest code of each row, in pieces that bound the memory."""
        half = self.codebook.square().sum(dim=1) / 2
        pieces = rows.split(max(1, 2**24 // self.codebook_size))
        with whole_float32():
            return torch.cat([(half - piece @ self.codebook.T).argmin(dim=1) for piece in pieces])

    @torch.no_grad()
    def _start(self, rows: Float[Tensor, "N D"]) -> None:
        """Draw the codebook from the latents of the first batch."""
        self.codebook.copy_(self._draw(rows, self.codebook_size))
        self.counts.fill_(len(rows) / self.codebook_size)
        self.sums.copy_(self.codebook * self.counts[:, None])

    @torch.no_grad()
    def _follow(self, rows: Float[Tensor, "N D"], indices: Int[Tensor, "N"]) -> None:
        """Average the latents of each code; restart the codes that none chooses."""
        if not rows.isfinite().all():
            return  # the step is skipped too: see training.guard
        counts = indices.bincount(minlength=self.codebook_size).to(rows.dtype)
        self.counts.lerp_(counts, 1 - self.decay)
        sums = torch.zeros_like(self.sums).index_add_(0, indices, rows)
        self.sums.lerp_(sums, 1 - self.decay)
        self.idle.add_(1).masked_fill_(counts > 0, 0)
        dead = self.decay**self.idle < self.restart_share
        if dead.any():
            self.sums[dead] = self._draw(rows, int(dead.sum())) * self.counts.mean()
            self.counts[dead], self.idle[dead] = self.counts.mean(), 0
        codebook = self.sums / self.counts[:, None]
        codebook = F.normalize(codebook, dim=1) if self.l2 else codebook
        # Far below, counts and sums have no digits left, and their ratio is noise.
        self.codebook.copy_(torch.where(self.counts[:, None] > FADED, codebook, self.codebook))
        self.updates += 1

    def _draw(self, rows: Float[Tensor, "N D"], count: int) -> Float[Tensor, "count D"]:
        """Choose rows at random, the same on every process and after a resume."""
        generator = torch.Generator().manual_seed(int(self.updates))
        order = torch.cat([torch.randperm(len(rows), generator=generator)] * -(-count // len(rows)))
        return rows[order[:count].to(rows.device)]

    def lookup(self, tokens: Int[Tensor, "B t h w"]) -> Float[Tensor, "B D t h w"]:
        return rearrange(self.codebook[tokens], "b t h w d -> b d t h w")


def _add_idle(quantizer: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Take a codebook saved before its unused steps were counted."""
    assert isinstance(quantizer, VQ)
    state.setdefault(f"{prefix}idle", torch.zeros_like(quantizer.idle))


class KL(Bottleneck):
    """Continuous bottleneck: a Gaussian a position, drawn from in training, its mean otherwise.

    Args:
        dim: Channels of a latent.
        weight: Weight of the divergence from a standard Gaussian, in nats a channel.
    """

    for_training = ("weight",)

    def __init__(self, dim: int = 8, weight: float = 1e-4) -> None:
        super().__init__()
        if dim < 1:
            raise ValueError(f"dim is {dim}, but KL needs at least 1 channel")
        self.dim, self.input_dim, self.weight = dim, 2 * dim, weight

    def apply_to(self, latents: Float[Tensor, "B E t h w"]) -> Quantized:
        mean, log_variance = latents.chunk(2, dim=1)
        # The calibrated encoder gives values around 0; a run starts with little noise.
        log_variance = (log_variance - 5).clamp(-30, 20)
        nats = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
        channels = nats.mean(dim=(0, 2, 3, 4))
        stats = {
            "nats_per_latent": channels.sum().detach(),
            "active_dims": (mean.var(dim=(0, 2, 3, 4), correction=0) > ACTIVE).sum().float(),
        }
        z = mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean
        return Quantized(z, None, self.weight * channels.mean(), stats)
