"""What is measured of each clip, kept until the end: for order, counts, intervals and examples."""

import torch
from jaxtyping import Int, Shaped
from torch import Tensor
from torchmetrics import Metric


class ClipTable(Metric):
    """One row of numbers a clip, whatever batch and process it came in.

    Every process fills the rows of its own clips and leaves zeros elsewhere, so the sum over
    processes is the table of one process, bit for bit.

    Args:
        num_clips: How many clips there will be.
        width: Numbers a clip.
        dtype: Of the table.
    """

    full_state_update = False
    rows: Tensor
    seen: Tensor

    def __init__(self, num_clips: int, width: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        if num_clips < 1 or width < 1:
            raise ValueError(f"num_clips is {num_clips} and width is {width}; use at least 1")
        self.width, self.row_dtype = width, dtype
        self.add_state("rows", torch.zeros(num_clips, width, dtype=dtype), dist_reduce_fx="sum")
        zeros = torch.zeros(num_clips, dtype=torch.int64)
        self.add_state("seen", zeros, dist_reduce_fx="sum")

    def update(self, index: Int[Tensor, " B"], rows: Shaped[Tensor, "B D"]) -> None:
        """Fill rows; what is not finite is refused at once, with the clip's number."""
        if rows.shape[1] != self.width:
            raise ValueError(f"rows have {rows.shape[1]} numbers, but the table has {self.width}")
        bad = index[~torch.isfinite(rows).all(1)].tolist()
        if bad:
            raise ValueError(
                f"what is measured of clips {bad[:10]} is not finite; look at these clips, and at "
                "the precision the extractor runs in"
            )
        self.rows[index] = rows.to(self.rows)
        self.seen += torch.bincount(index, minlength=len(self.seen))

    def compute(self) -> Shaped[Tensor, "N D"]:
        """Return the table after checking that each clip came exactly once."""
        for times, word in ((self.seen == 0, "never"), (self.seen > 1, "twice or more")):
            if times.any():
                numbers = times.nonzero().flatten().tolist()
                raise ValueError(
                    f"{len(numbers)} of {len(self.seen)} clips came {word}, first {numbers[:5]}; "
                    "update with each clip once"
                )
        return self.rows.to(self.row_dtype)  # a sum of bytes is long
