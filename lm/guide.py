"""The vectors of a guide: another clip's tokens, told apart from those of the video."""

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lm.codes import CodeTable
from lm.condition import Guide
from lm.factors import FactorTable


class GuideTable(nn.Module):
    """Reads guides: the vector of a token plus a mark, and one learnt vector for every hole.

    Args:
        width: Length of a vector.
        std: Deviation of the vectors at the start.
        codebook_size: Codes of the guide's own tokenizer; None where it is the video's.
    """

    def __init__(self, width: int, std: float, codebook_size: int | None) -> None:
        super().__init__()
        self.mark = nn.Parameter(std * torch.randn(width))
        self.hole = nn.Parameter(std * torch.randn(width))
        self.codes = None if codebook_size is None else CodeTable(codebook_size, width, std)

    def forward(
        self, guide: Guide, codes: CodeTable | FactorTable, of_video: bool = False
    ) -> Float[Tensor, "B n D"]:
        """Return the vectors of a guide's tokens in raster order.

        Args:
            guide: The tokens.
            codes: The vectors of the video's codes.
            of_video: The tokens are of the video's tokenizer whatever that of other guides is.
        """
        table = codes if self.codes is None or of_video else self.codes
        vectors = table.read(guide.tokens) + self.mark
        if guide.hole is not None:
            vectors = torch.where(guide.hole[..., None], self.hole, vectors)
        return rearrange(vectors, "b t h w d -> b (t h w) d")
