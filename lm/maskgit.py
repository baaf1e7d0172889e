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
from lm.masking import Schedule, corrupt, draw_frame_masks, draw_masks, num_steps
from lm.prior import Places, Prior
from lm.sampling import Sampling
from lm.sequence import given_tokens, of_codes
from lm.transformer import Table, Transformer

_GROUPS = 8  # of channels that are mixed with each other around a token


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
        schedule: How many tokens stay masked from step to step of sampling. Training masks a
            quarter of the clips whole, and each smaller share equally often.
        label_smoothing: Share of each target that is spread over all codes.
        corruption: Up to this share of the tokens that are not masked is replaced by random ones in
            training, since sampling will not always have been right.
        context_share: Share of the training clips whose first latent frames, from one to all but
            one, are given whole, as a continuation has them; with `causal` of the latent frames.
        inputs: What it can be told beside text: tasks, classes, actions, features.
        surroundings: Add to each token what stands around it, before the first layer: a masked one
            has nothing of its own (conditional positions, Chu et al. 2021, arXiv 2102.10882). The
            published models do without.
        causal: Tokens see their own latent frame and those before it, and one latent frame is drawn
            after the other; what is read of those before is kept, so that steps cost less.
        redrawn: Shares of the tokens drawn together that the last steps draw again, the least sure
            first, where these are 8 or more: 0.3, 0.2 and 0.1 by default. [] for MaskGIT's own way.
        slides: Train on windows at any place of longer clips, of which all but the first begin with
            a latent frame that is like any other. Videos then go on from tokens where only texts
            and classes tell what they show and the tokenizer makes the pixels; otherwise, and from
            part to part of a story, from frames that are encoded again.
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
        context_share: float = 0.25,
        inputs: Inputs | None = None,
        surroundings: bool = True,
        causal: bool = False,
        redrawn: list[float] | None = None,
        slides: bool = False,
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
            slides,
        )
        if "caption" in self.inputs.tasks:
            raise ValueError(
                "a masked prior does not write text one piece after another; leave caption out of "
                "its tasks, or take an AutoregressivePrior"
            )
        shares = {"corruption": corruption, "context_share": context_share}
        for name, share in {**shares, "label_smoothing": label_smoothing}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, but is a share in [0, 1]; 0 is off")
        self.schedule: Schedule = schedule
        self.label_smoothing, self.causal = label_smoothing, causal
        self.corruption, self.context_share = corruption, context_share
        self.redrawn = [0.3, 0.2, 0.1] if redrawn is None else redrawn
        if len(self.redrawn) > 4 or not all(0 < share < 1 for share in self.redrawn):
            raise ValueError(
                f"redrawn is {redrawn}, but draws at most 4 shares in (0, 1) again; [] is off"
            )
        width = transformer.width
        self.mask = nn.Parameter(0.5 * torch.randn(1, width))
        self.surroundings: nn.Conv3d | None = None
        if surroundings:
            self.surroundings = nn.Conv3d(width, width, 3, padding=(0, 1, 1), groups=_GROUPS)
            for parameter in self.surroundings.parameters():
                nn.init.zeros_(parameter)

    def logits(
        self, tokens: Int[Tensor, "B t h w"], masked: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N V"]:
        """Return the logits of all tokens given the condition and those that are not masked."""
        return linear(self._states(tokens, masked, condition), self.output_table())

    def loss(
        self,
        tokens: Int[Tensor, "B t h w"],
        condition: Condition,
        drop: Bool[Tensor, "B"] | None = None,
        generator: torch.Generator | None = None,
        given: Int[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """Mean over clips of the mean cross-entropy of masked tokens, in nats.

        A quarter of the clips is masked whole, the shares of the others are drawn evenly and each
        clip counts alike: without contexts, corruption and smoothing three quarters of it are the
        bound on the nats of a token of MDLM (arXiv 2406.07524). With the shares of a cosine and
        each token counting alike, clips of next to no known token are half of it.
        With `causal` the same holds of latent frames in place of clips.
        """
        flat = tokens.flatten(1)
        drawn = draw_frame_masks if self.causal else draw_masks
        masked = drawn(tokens.shape, self.context_share, generator).to(flat.device)
        if given is not None:
            masked &= ~given_tokens(tokens.shape, given).to(flat.device)
        read = corrupt(flat, self.vocabulary.codebook_size, self.corruption, generator)
        states = self._states(read.view_as(tokens), masked, condition.dropped(drop))
        table, smoothing = self.output_table(), self.label_smoothing
        nats = torch.zeros(masked.shape, device=flat.device)
        nats[masked] = cross_entropy(states[masked], table, flat[masked], smoothing)
        nats, count = (self._parts(x.view_as(tokens)).sum(-1) for x in (nats, masked))
        return (nats / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)

    @torch.no_grad()
    def pseudo_log_likelihood(
        self, tokens: Int[Tensor, "B t h w"], condition: Condition, groups: int | None = None
    ) -> Float[Tensor, "B N"]:
        """Return log p(token | all others) of each token in nats.

        The sum over tokens is Besag's (1975) pseudo-likelihood. It is no likelihood: the factors
        are of no one chain rule, so it must not be compared with an autoregressive `score`. With
        `causal` the others are those of the same latent frame and of those before it.

        Args:
            tokens: Tokens of clips.
            condition: What each is conditioned on.
            groups: Calls of the network; all tokens n with one n mod `groups` are masked together,
                so that each is given only others outside its group. One a token by default.

        Raises:
            ValueError: The tokens do not fit the trained window, or there are no such groups.
        """
        self.require_fit(tokens)
        flat = tokens.flatten(1)
        num_tokens = flat.shape[1]
        groups = num_tokens if groups is None else groups
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
            sampling: How they are drawn; each clip's steps are divided by where most is unknown.
        """
        masked = self._parts(unknown)
        counts = [self._steps(sampling, row) for row in masked.sum(-1).tolist()]
        steps, grid = torch.tensor(counts, device=tokens.device), tokens.shape[1:]
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
        self, tokens: Int[Tensor, "B t h w"], masked: Bool[Tensor, "B t h w"]
    ) -> Float[Tensor, "B t n D"]:
        """Return what stands for tokens; masked ones are not read."""
        table = torch.cat([self.codes(), self.mask])
        codes = F.embedding(tokens.masked_fill(masked, len(table) - 1), table)
        if self.surroundings is not None:
            x = rearrange(codes, "b t h w d -> b d t h w")
            before = 2 if self.causal else 1
            x = self.surroundings(F.pad(x, (0, 0, 0, 0, before, 2 - before)))
            codes = codes + rearrange(x, "b d t h w -> b t h w d")
        return rearrange(codes, "b t h w d -> b t (h w) d")

    def visible(self, lead: int, frames: int, frame: int) -> Table:
        """Return who sees whom: everyone everyone, or `causal` those of no later latent frame.

        Args:
            lead: Positions before the video.
            frames: Latent frames.
            frame: Positions of each.
        """
        if not self.causal:
            return None
        order = torch.arange(frames, device=self.mask.device).repeat_interleave(frame)
        order = F.pad(order, (lead, 0), value=-1)
        return order[:, None] >= order

    def _states(
        self, tokens: Int[Tensor, "B t h w"], masked: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N D"]:
        """Return the states of the video's positions; masked tokens are not read."""
        t = tokens.shape[1]
        codes = self.vectors(tokens, masked.view_as(tokens))
        lead, body = self.lead(condition), self.body(codes, condition)
        places = self.positions(condition, t)
        mask = self.visible(lead.shape[1], t, body.shape[1] // t)
        mask = self.seen(mask, places, self.on_grid(condition, t))
        states = self.transformer(torch.cat([lead, body], dim=1), self.rotary(places), mask)
        return of_codes(states[:, lead.shape[1] :], *codes.shape[1:3])
