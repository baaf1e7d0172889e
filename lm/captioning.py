"""Video to text: an autoregressive prior reads the tokens of a clip and writes text pieces.

<bos> <caption> ... the clip's tokens as a guide <bos> pieces ... <eos>
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from lm.autoregressive import AutoregressivePrior
from lm.codes import CodeTable
from lm.condition import Condition, Guide, Texts
from lm.decoder import Decoder
from lm.logits import choose
from lm.loss import cross_entropy
from lm.sampling import Sampling
from lm.sequence import BOS, line
from lm.transformer import Masks

_NOTHING = -1  # behind the end of a shorter text


def asked(tokens: Int[Tensor, "B t h w"]) -> Condition:
    """Return the condition under which captions of clips are written."""
    return Condition([[] for _ in tokens], "caption", guide=Guide(tokens))


def caption_loss(
    prior: AutoregressivePrior, tokens: Int[Tensor, "B t h w"], texts: Texts
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of text pieces and of the end behind them, in nats.

    Args:
        prior: Trained for captions, or to be.
        tokens: Tokens of clips.
        texts: Text pieces of each.
    """
    lead, end = prior.lead(asked(tokens), BOS), prior.vocabulary.text_size
    length = max(len(text) for text in texts)
    rows = [[*text, end, *[_NOTHING] * (length - len(text))] for text in texts]
    targets = torch.tensor(rows, device=lead.device)
    pieces = targets[:, :-1].clamp(0, end - 1)  # what stands behind an end is predicted from none
    pieces = prior.embedding(prior.vocabulary.first_text + pieces)
    x = torch.cat([lead, pieces], dim=1)
    table, mask = _layout(prior, tokens, length)
    states = prior.transformer(x, table, mask)[:, lead.shape[1] - 1 :]
    known = targets != _NOTHING
    return cross_entropy(states[known], _head(prior)(), targets[known]).mean()


@torch.no_grad()
def write_captions(
    prior: AutoregressivePrior,
    tokens: Int[Tensor, "B t h w"],
    generators: list[torch.Generator],
    sampling: Sampling,
) -> Texts:
    """Draw the text pieces of each clip; text i depends on `generators[i]` alone.

    Args:
        prior: Trained for captions.
        tokens: Tokens of clips.
        generators: A source of randomness a clip.
        sampling: How pieces are drawn; guidance, which has no other side here, must be off.
    """
    if sampling.guidance_scale != 1:
        raise ValueError("a caption has no text to be guided by; leave guidance_scale at 1")
    window, vocabulary = prior.text_window, prior.vocabulary
    uniforms = torch.stack([torch.rand(window + 1, 1, generator=g) for g in generators])
    dtype = prior.sampling_dtype(sampling.quantize)
    with torch.inference_mode(), torch.autocast(tokens.device.type, enabled=False):
        lead, head = prior.lead(asked(tokens), BOS).to(dtype), _head(prior)()
        rows = prior.embedding.weight[vocabulary.first_text :][: vocabulary.text_size]
        # Behind its end a text goes on, unread: what stands there is cut off.
        rows = F.pad(rows, (0, 0, 0, 1)).to(dtype)
        table, mask = _layout(prior, tokens, window + 1)
        read = lambda pieces: F.embedding(pieces, rows)
        decoder = Decoder(prior.transformer, head, read, lead, table, mask, sampling.quantize)
        pick = lambda logits, uniform: choose(logits.float(), uniform, sampling)
        drawn = [
            decoder.step(uniforms[:, i].to(lead.device), pick).tolist() for i in range(window + 1)
        ]
    end = vocabulary.text_size
    texts = [list(text) for text in zip(*drawn, strict=True)]
    return [text[: text.index(end)] if end in text else text[:window] for text in texts]


def _layout(
    prior: AutoregressivePrior, tokens: Int[Tensor, "B t h w"], length: int
) -> tuple[Float[Tensor, "two N head_dim"], Masks]:
    """Return the rotary table of the lead and of so many pieces, and who sees whom.

    The pieces stand behind all axes of the clip.
    """
    condition, first = asked(tokens), prior.prefix_length + max(prior.grid)
    lead, on_grid = prior.lead_places(condition), prior.on_grid(condition)
    places = torch.cat([lead, line(length, first)])
    mask = prior.mask(len(places), len(lead))
    return prior.rotary(places), prior.seen(mask, places, F.pad(on_grid, (0, length)))


def _head(prior: AutoregressivePrior) -> CodeTable:
    if prior.text_head is None:
        raise ValueError("this prior was trained without captions; train with the task caption")
    return prior.text_head
