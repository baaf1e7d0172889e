"""Steps whose gradient is not finite: skipped, counted, and an error when they do not end."""

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn


class FiniteGuard(nn.Module):
    """Decides whether a step is taken. Its counts are buffers, so that a checkpoint carries them.

    Args:
        player: Whose steps these are, for the messages.
        max_in_a_row: So many skipped steps one after another are an error.
    """

    total: Tensor
    in_a_row: Tensor

    def __init__(self, player: str, max_in_a_row: int) -> None:
        super().__init__()
        self.player, self.max_in_a_row = player, max_in_a_row
        self.register_buffer("total", torch.tensor(0))
        self.register_buffer("in_a_row", torch.tensor(0))

    def admits(self, norm: Tensor, step: int) -> bool:
        """Say whether the norm of a gradient is finite; count the step where it is not."""
        if bool(norm.isfinite()):
            self.in_a_row.zero_()
            return True
        self.total += 1
        self.in_a_row += 1
        rank_zero_warn(f"step {step}: the gradient of the {self.player} is not finite; skipped")
        if self.in_a_row >= self.max_in_a_row:
            raise RuntimeError(
                f"{int(self.in_a_row)} steps in a row had a gradient of the {self.player} that is "
                "not finite; lower the learning rate or look at the data"
            )
        return False
