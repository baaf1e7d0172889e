"""The masked prior: all tokens at once, the surest kept, the others guessed again.

MaskGIT (Chang et al. 2022, arXiv 2202.04200); MAGVIT (Yu et al. 2022, arXiv 2212.05199).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from layers.linear import linear
from lm.condition import Condition, Inputs
from lm.logits import draw, probabilities
from lm.loss import cross_entropy
from lm.masking import Schedule, corrupt, draw_masks, gumbel, lowest, num_steps, still_masked
from lm.packing import packed
from lm.prior import Places, Prior, guided
from lm.sampling import Sampling
from lm.sequence import of_codes
from lm.transformer import Transformer

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
        schedule: How many tokens stay masked from step to step of sampling. Training masks each
            share equally often.
        label_smoothing: Share of each target that is spread over all codes.
        corruption: Up to this share of the tokens that are not masked is replaced by random ones in
            training, since sampling will not always have been right.
        context_share: Share of the training clips whose first latent frames, from one to all but
            one, are given whole, as a continuation has them.
        inputs: What it can be told beside text: tasks, classes, actions, features.
        surroundings: Add to each token what stands around it, before the first layer: a masked one
            has nothing of its own (conditional positions, Chu et al. 2021, arXiv 2102.10882). The
            published models do without.
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
        shares = {"corruption": corruption, "context_share": context_share}
        for name, share in {**shares, "label_smoothing": label_smoothing}.items():
            if not 0 <= share <= 1:
                raise ValueError(f"{name} is {share}, but is a share in [0, 1]; 0 is off")
        self.schedule: Schedule = schedule
        self.label_smoothing = label_smoothing
        self.corruption, self.context_share = corruption, context_share
        width = transformer.width
        self.mask = nn.Parameter(0.5 * torch.randn(1, width))
        self.surroundings: nn.Conv3d | None = None
        if surroundings:
            self.surroundings = nn.Conv3d(width, width, 3, padding=1, groups=_GROUPS)
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
    ) -> Float[Tensor, ""]:
        """Mean over clips of the mean cross-entropy of masked tokens, in nats.

        Shares are drawn evenly and each clip counts alike, so that without contexts, corruption and
        smoothing it bounds the nats of a token from above (MDLM, arXiv 2406.07524). With the shares
        of a cosine and each token counting alike, clips of next to no known token are half of it.
        """
        flat = tokens.flatten(1)
        masked = draw_masks(tokens.shape, self.context_share, generator)
        masked = masked.to(flat.device)
        read = corrupt(flat, self.vocabulary.codebook_size, self.corruption, generator)
        states = self._states(read.view_as(tokens), masked, condition.dropped(drop))
        table, smoothing = self.output_table(), self.label_smoothing
        nats = torch.zeros(masked.shape, device=flat.device)
        nats[masked] = cross_entropy(states[masked], table, flat[masked], smoothing)
        return (nats.sum(1) / masked.sum(1)).mean()

    @torch.no_grad()
    def pseudo_log_likelihood(
        self, tokens: Int[Tensor, "B t h w"], condition: Condition, groups: int | None = None
    ) -> Float[Tensor, "B N"]:
        """Return log p(token | all others) of each token in nats.

        The sum over tokens is Besag's (1975) pseudo-likelihood. It is no likelihood: the factors
        are of no one chain rule, so it must not be compared with an autoregressive `score`.

        Args:
            tokens: Tokens of clips.
            condition: What each is conditioned on.
            groups: Calls of the network; all tokens n with one n mod `groups` are masked together,
                so that each is given only the others outside its group. One a token by default.
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
            sampling: How they are drawn.
        """
        flat, masked = tokens.flatten(1), unknown.flatten(1)
        num_unknown = masked.sum(1)
        self.check_sampling(sampling, int(num_unknown.min()))
        steps = num_steps(sampling.steps, int(num_unknown.min()))
        both = condition if sampling.guidance_scale == 1.0 else condition.with_bare()
        sides = len(both) // len(flat)
        plain = torch.is_autocast_enabled(flat.device.type)
        network = self if plain else packed(self, self.mask.dtype)
        for step in range(steps):
            seen = flat.view_as(tokens).repeat(sides, 1, 1, 1)
            logits = network.logits(seen, masked.repeat(sides, 1), both).float()
            logits = guided(logits, sampling.guidance_scale)
            noise = torch.stack([torch.rand(2, flat.shape[1], generator=g) for g in generators])
            uniforms, choice = noise.to(flat.device).unbind(1)
            chances = probabilities(logits.flatten(0, 1), sampling)
            guesses = draw(chances, uniforms.flatten()).view_as(flat)
            flat = torch.where(masked, guesses, flat)
            sureness = logits.log_softmax(-1).gather(-1, flat[..., None])[..., 0]
            ratio = (step + 1) / steps
            sureness = sureness + sampling.choice_temperature * (1 - ratio) * gumbel(choice)
            count = still_masked(self.schedule, ratio, num_unknown, masked.sum(1))
            masked = lowest(sureness.masked_fill(~masked, torch.inf), count)
        return flat.view_as(tokens)

    def check_sampling(self, sampling: Sampling, num_unknown: int) -> None:
        if sampling.quantize is not None:
            raise ValueError(
                "a masked prior computes more than it reads, so small weights save nothing; "
                "leave quantize out"
            )
        num_steps(sampling.steps, num_unknown)

    def _states(
        self, tokens: Int[Tensor, "B t h w"], masked: Bool[Tensor, "B N"], condition: Condition
    ) -> Float[Tensor, "B N D"]:
        """Return the states of the video's positions; masked tokens are not read."""
        table = torch.cat([self.codes(), self.mask])
        codes = F.embedding(tokens.flatten(1).masked_fill(masked, len(table) - 1), table)
        t, h = tokens.shape[1:3]
        codes = rearrange(codes, "b (t h w) d -> b d t h w", t=t, h=h)
        if self.surroundings is not None:
            codes = codes + self.surroundings(codes)
        codes = rearrange(codes, "b d t h w -> b t (h w) d")
        lead, body = self.lead(condition), self.body(codes, condition)
        places = self.positions(condition, t)
        mask = self.seen(None, places, self.on_grid(condition, t))
        states = self.transformer(torch.cat([lead, body], dim=1), self.rotary(places), mask)
        return of_codes(states[:, lead.shape[1] :], *codes.shape[1:3])
