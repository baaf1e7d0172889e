"""The masked prior: all tokens at once, the surest kept, the others guessed again.

MaskGIT (Chang et al. 2022, arXiv 2202.04200); MAGVIT (Yu et al. 2022, arXiv 2212.05199). Latent
frame after latent frame: Genie (Bruce et al. 2024, arXiv 2402.15391).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from layers.linear import linear
from lm.condition import Condition, Inputs
from lm.filling import fill_parts
from lm.loss import cross_entropy
from lm.masking import (
    Schedule,
    checked_context_share,
    checked_copies,
    corrupt,
    draw_frame_masks,
    draw_masks,
    num_steps,
)
from lm.patterns import behind_whole
from lm.prior import Places, Prior
from lm.sampling import Sampling
from lm.sequence import of_codes
from lm.surroundings import Surroundings
from lm.transformer import Transformer


class MaskGITPrior(Prior):
    """Models masked tokens of a clip, given text and the tokens that are not masked.

    Args:
        transformer: The network; here every position sees every other.
        codebook_size: Codes of the tokenizer.
        grid: Token grid (t, h, w) of the trained window.
        text_size: Text pieces at most.
        text_window: Pieces of the longest prompt.
        levels: FSQ levels of the tokenizer; codes that share one then share a part of what is
            learnt about them (`CodeTable`).
        tied: Read and predict codes by the same vectors.
        places: "grid" gives video tokens their (t, h, w) as positions, "line" one number.
        schedule: How many tokens stay masked from step to step of sampling. Training masks each
            share equally often.
        label_smoothing: Share of each target that is spread over all codes.
        corruption: Up to this share of the tokens that are not masked is replaced by random ones in
            training, since sampling will not always have been right.
        context_share: Share of the training clips whose first latent frames, from one to all but
            one, are given whole, as a continuation has them; a quarter by default. With `causal`
            those before a latent frame always are.
        inputs: What it can be told beside text: tasks, classes, actions, features.
        surroundings: Add to each token what stands around it, before the first layer. The published
            models do without.
        causal: Tokens see their own latent frame and whole those before it, and one latent frame is
            drawn after the other; what is read of those before is kept, so that steps cost less.
        copies: With `causal`, in how many ways a training step masks each latent frame; one each.
    """

    measure = "bits_per_masked_token"

    def __init__(
        self,
        transformer: Transformer,
        codebook_size: int,
        grid: list[int],
        text_size: int = 320,
        text_window: int = 24,
        levels: list[int] | None = None,
        tied: bool = False,
        places: Places = "grid",
        schedule: Schedule = "cosine",
        label_smoothing: float = 0.0,
        corruption: float = 0.0,
        context_share: float | None = None,
        inputs: Inputs | None = None,
        surroundings: bool = True,
        causal: bool = False,
        copies: list[int] | None = None,
    ) -> None:
        super().__init__(
            transformer,
            codebook_size,
            grid,
            text_size,
            text_window,
            levels,
            tied,
            places,
            None,
            inputs,
        )
        if "caption" in self.inputs.tasks:
            raise ValueError(
                "a masked prior does not write text one piece after another; leave caption out of "
                "its tasks, or take an AutoregressivePrior"
            )
        context_share = checked_context_share(context_share, causal)
        shares = {"corruption": corruption, "context_share": context_share}
        for name, share in {**shares, "label_smoothing": label_smoothing}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, but is a share in [0, 1]; 0 is off")
        self.schedule: Schedule = schedule
        self.label_smoothing, self.causal = label_smoothing, causal
        self.corruption, self.context_share = corruption, context_share
        self.copies = checked_copies(copies, causal, self.grid[0])
        width = transformer.width
        self.mask = nn.Parameter(0.5 * torch.randn(1, width))
        self.surroundings: Surroundings | None = None
        if surroundings:
            self.surroundings = Surroundings(width, causal=causal)

    def logits(
        self, tokens: Int[Tensor, "B t h w"], masked: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N V"]:
        """Return the logits of all tokens given the condition and those that are not masked.

        With `causal` those of the latent frames before are given whole, whatever is masked.
        """
        frames = [*range(tokens.shape[1])]
        return linear(self._states(tokens, masked, condition, frames), self.output_table())

    def loss(
        self,
        tokens: Int[Tensor, "B t h w"],
        condition: Condition,
        drop: Bool[Tensor, "B"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over clips of the mean cross-entropy of masked tokens, in nats.

        Shares are drawn evenly and each clip counts alike, so that without contexts, corruption and
        smoothing it bounds the nats of a token from above (MDLM, arXiv 2406.07524). With the shares
        of a cosine and each token counting alike, clips of next to no known token are half of it.
        With `causal` the same holds of latent frames in place of clips.
        """
        frames = [*range(tokens.shape[1])]
        if self.causal:
            frames = [frame for frame in frames for _ in range(self.copies[frame])]
            masked = draw_frame_masks(tokens[:, frames].shape, generator)
        else:
            masked = draw_masks(tokens.shape, self.context_share, generator)
        masked = masked.to(tokens.device)
        read = corrupt(tokens.flatten(1), self.vocabulary.codebook_size, self.corruption, generator)
        read, condition = read.view_as(tokens), condition.dropped(drop)
        states, truth = self._states(read, masked, condition, frames), tokens[:, frames]
        nats = torch.zeros(masked.shape, device=masked.device)
        nats[masked] = cross_entropy(
            states[masked], self.output_table(), truth.flatten(1)[masked], self.label_smoothing
        )
        nats, count = (self._parts(x.view_as(truth)).sum(-1) for x in (nats, masked))
        return (nats / count).mean()

    @torch.no_grad()
    def pseudo_log_likelihood(
        self, tokens: Int[Tensor, "B t h w"], condition: Condition, groups: int | None = None
    ) -> Float[Tensor, "B N"]:
        """Return log p(token | all others) of each token in nats.

        The sum over tokens is Besag's (1975) pseudo-likelihood. It is no likelihood: the factors
        are of no one chain rule, so it must not be compared with an autoregressive `score`. With
        `causal` the others are those of the same latent frame and of those before it, which are
        given whole.

        Args:
            tokens: Tokens of clips.
            condition: What each is conditioned on.
            groups: Calls of the network; all tokens n with one n mod `groups` are masked together,
                so that each is given only the others outside its group (with `causal`, of its own
                latent frame). One a token by default.
        """
        flat = tokens.flatten(1)
        num_tokens = flat.shape[1]
        groups = groups or num_tokens
        if not 1 <= groups <= num_tokens:
            raise ValueError(f"groups is {groups}, but must lie in 1 ... {num_tokens}")
        scores = torch.zeros(flat.shape, device=flat.device)
        for group in range(groups):
            members = torch.arange(num_tokens, device=flat.device) % groups == group
            masked = members.expand_as(flat)
            chances = self.logits(tokens, masked, condition)[:, members].float().log_softmax(-1)
            scores[:, members] = chances.gather(-1, flat[:, members, None])[..., 0]
        return scores

    @torch.no_grad()
    def sample(
        self,
        condition: Condition,
        generators: list[torch.Generator],
        *,
        context: Int[Tensor, "B k h w"] | None = None,
        num_latent_frames: int | None = None,
        sampling: Sampling = Sampling(),
    ) -> Int[Tensor, "B t h w"]:
        """Draw all unknown tokens in a few steps; sample i depends on `generators[i]` alone."""
        grid = self.window(condition, generators, context, num_latent_frames)
        tokens = torch.zeros(len(condition), *grid, dtype=torch.long, device=self.mask.device)
        unknown = torch.ones_like(tokens, dtype=torch.bool)
        if context is not None:
            tokens[:, : context.shape[1]] = context
            unknown[:, : context.shape[1]] = False
        return self.fill(tokens, unknown, condition, generators, sampling=sampling)

    @torch.no_grad()
    def fill(
        self,
        tokens: Int[Tensor, "B t h w"],
        unknown: Bool[Tensor, "B t h w"],
        condition: Condition,
        generators: list[torch.Generator],
        *,
        sampling: Sampling = Sampling(),
    ) -> Int[Tensor, "B t h w"]:
        """Draw the unknown tokens of clips and keep the others as they are.

        Args:
            tokens: Tokens of clips; where unknown, any.
            unknown: True where a token is to be drawn.
            condition: What each sample is conditioned on.
            generators: A source of randomness a sample.
            sampling: How they are drawn; steps are divided by where most is unknown.
        """
        masked = self._parts(unknown)
        num_unknown = masked.sum(-1)
        self.check_sampling(sampling, int(num_unknown.sum(1).min()))
        steps, grid = self._steps(sampling, num_unknown.amax(0).tolist()), tokens.shape[1:]
        drawn = fill_parts(
            self, self._parts(tokens), masked, steps, condition, grid, generators, sampling
        )
        return drawn.view_as(tokens)

    def check_sampling(self, sampling: Sampling, num_unknown: int) -> None:
        frame = self.grid[1] * self.grid[2] if self.causal else num_unknown
        whole, rest = divmod(num_unknown, max(1, frame))
        self._steps(sampling, [frame] * whole + [rest])

    def _steps(self, sampling: Sampling, num_unknown: list[int]) -> list[int]:
        if sampling.quantize is not None:
            raise ValueError(
                "a masked prior computes more than it reads, so small weights save nothing; "
                "leave quantize out"
            )
        return num_steps(sampling.steps, num_unknown)

    def _parts(self, tokens: Shaped[Tensor, "B t h w"]) -> Shaped[Tensor, "B parts n"]:
        """Return the tokens that are drawn together, part by part."""
        pattern = "b t h w -> b t (h w)" if self.causal else "b t h w -> b 1 (t h w)"
        return rearrange(tokens, pattern)

    def vectors(
        self, tokens: Int[Tensor, "B t h w"], masked: Bool[Tensor, "B t h w"] | None = None
    ) -> Float[Tensor, "B t h w D"]:
        """Return what stands for each token by itself; masked ones are not read."""
        table = torch.cat([self.codes(), self.mask])
        if masked is not None:
            tokens = tokens.masked_fill(masked, len(table) - 1)
        return F.embedding(tokens, table)

    def _states(
        self,
        tokens: Int[Tensor, "B t h w"],
        masked: Bool[Tensor, "B N"],
        condition: Condition,
        frames: list[int],
    ) -> Float[Tensor, "B N D"]:
        """Return the states of latent frames; masked tokens are not read.

        With `causal` those before are read whole, in front of them: what sampling sees is what
        training sees, in one pass (block diffusion, Arriola et al. 2025, arXiv 2503.09573).

        Args:
            tokens: Of whole clips.
            masked: Which tokens of `frames` are hidden.
            condition: What each clip is conditioned on.
            frames: Latent frames; with `causal` one may stand there several times.
        """
        h, w = tokens.shape[2:]
        count = max(frames) + 1
        whole = [*range(count - 1)] if self.causal else []
        codes = self.vectors(tokens[:, frames], masked.view(-1, len(frames), h, w))
        known = self.vectors(tokens[:, whole])
        if self.surroundings is not None:
            around = self.surroundings
            codes = around.after(codes, known, frames) if self.causal else around(codes)
            known = around(known) if whole else known
        rows = whole + frames
        codes = rearrange(torch.cat([known, codes], dim=1), "b t h w d -> b t (h w) d")
        lead, body = self.lead(condition), self.body(codes, condition, rows)
        first, size = lead.shape[1], body.shape[1] // len(rows)
        index = first + torch.tensor(rows)[:, None] * size + torch.arange(size)
        index = torch.cat([torch.arange(first), index.flatten()])
        places, on_grid = self.positions(condition, count), self.on_grid(condition, count)
        mask = behind_whole(first, size, whole, frames).to(lead.device) if self.causal else None
        mask = self.seen(mask, places[index], on_grid[index])
        x = torch.cat([lead, body], dim=1)
        states = self.transformer(x, self.rotary(places[index]), mask)
        return of_codes(states[:, first + len(whole) * size :], len(frames), h * w)
