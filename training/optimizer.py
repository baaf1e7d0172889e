"""One optimizer for a whole network: Muon on the hidden matrices, AdamW on everything else.

Muon: Jordan et al. 2024 (kellerjordan.github.io/posts/muon). One `Optimizer` instead of two keeps
Lightning's step count equal to ours, and convolutions count as matrices of their flattened kernels,
which `torch.optim.Muon` refuses.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices: Tensor, rounds: tuple[int, ...] = (3, 2)) -> Tensor:
    """Move singular values of a stack of matrices towards 1, by quintic Newton-Schulz steps.

    A step multiplies a matrix by a polynomial of its Gram matrix, so that steps can be taken on
    that alone, which is small (Gram Newton-Schulz, Zhang et al. 2026).

    Args:
        matrices: A stack "K M N".
        rounds: Steps, five of which bring the values of any matrix to about [0.7, 1.2]. Each round
            takes the Gram matrix anew: in bfloat16 all five at once lose what is small.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.bfloat16()
    x = x.mT if tall else x
    x = x / x.float().norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7).to(x.dtype)
    for steps in rounds:
        gram = x @ x.mT
        for step in range(steps):
            factor = b * gram + c * gram @ gram
            factor.diagonal(dim1=-2, dim2=-1).add_(a)
            product = factor @ product if step else factor  # polynomials of one matrix commute
            if step + 1 < steps:
                gram = factor @ gram @ factor
        x = product @ x
    return x.mT if tall else x


def matrices(weight: Tensor) -> Tensor:
    """Return a hidden weight as the matrices "K M N" that it is.

    A convolution is one, of its flattened kernels. With several times as many outputs as inputs it
    makes sub-pixels, and is as many: orthogonal each, they are as long together as the one would
    be, and the products that make them so take a third of the time.
    """
    parts = weight.shape[0] // weight.shape[1] if weight.ndim > 2 else 1
    parts = parts if parts and weight.shape[0] == parts * weight.shape[1] else 1
    return weight.reshape(parts, weight.shape[0] // parts, -1)


class MuonAdamW(Optimizer):
    """Muon with Nesterov momentum for groups marked `muon`, AdamW for the others.

    Args:
        matrices: Hidden weights of two or more dimensions; flattened behind the first one.
        rest: Embeddings, norms, biases, first and last layers.
        matrix_learning_rate: Step of Muon, scaled by sqrt(max(1, rows / columns)).
        learning_rate: Step of AdamW.
        weight_decay: Decoupled decay of both, times the learning rate.
        betas: Decay of AdamW's moments.
        momentum: Decay of Muon's momentum.
    """

    def __init__(
        self,
        matrices: list[Tensor],
        rest: list[Tensor],
        *,
        matrix_learning_rate: float,
        learning_rate: float,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        momentum: float = 0.95,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": matrices, "lr": matrix_learning_rate, "muon": True},
            {"params": rest, "lr": learning_rate, "muon": False},
        ]
        groups = [{**group, "base_lr": group["lr"]} for group in groups if group["params"]]
        super().__init__(
            groups, {"weight_decay": weight_decay, "betas": betas, "momentum": momentum}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Apply one update with the gradients at hand."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            (self._muon if group["muon"] else self._adamw)(parameters, group)
        return loss

    def _muon(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        by_shape: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for p in parameters:
            assert p.grad is not None
            if "momentum" not in self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
            buffer = self.state[p]["momentum"]
            buffer.lerp_(p.grad, 1 - group["momentum"])
            update = matrices(p.grad.lerp(buffer, group["momentum"]))
            by_shape[update.shape].append((p, update))
        for (_, rows, columns), pairs in by_shape.items():
            updates = orthogonalize(torch.stack([update for _, update in pairs]))
            scale = -group["lr"] * math.sqrt(max(1.0, rows / columns))
            for (p, _), update in zip(pairs, updates.to(pairs[0][0].dtype), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=scale)

    def _adamw(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        first, second = group["betas"]
        for p in parameters:
            assert p.grad is not None
            state = self.state[p]
            if not state:
                state["step"] = torch.zeros(())
                state["mean"], state["square"] = torch.zeros_like(p), torch.zeros_like(p)
            state["step"] += 1
            state["mean"].lerp_(p.grad, 1 - first)
            state["square"].mul_(second).addcmul_(p.grad, p.grad, value=1 - second)
            mean_scale = 1 - first ** state["step"].item()
            square_scale = 1 - second ** state["step"].item()
            p.mul_(1 - group["lr"] * group["weight_decay"])
            denominator = (state["square"] / square_scale).sqrt_().add_(1e-8)
            p.addcdiv_(state["mean"], denominator, value=-group["lr"] / mean_scale)


def keep_settings(optimizer: Optimizer) -> None:
    """Read no rate or decay from a checkpoint: a run that goes on follows its own recipe."""

    def own(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        pairs = zip(optimizer.param_groups, state["param_groups"], strict=True)
        return {**state, "param_groups": [{**own, "params": it["params"]} for own, it in pairs]}

    optimizer.register_load_state_dict_pre_hook(own)


def split_parameters(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Divide trainable parameters into hidden matrices (those inside `blocks`) and the rest."""
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            (matrices if "blocks." in name and p.ndim >= 2 else rest).append(p)
    return matrices, rest


def learning_rate_scale(step: int, max_steps: int, warmup_steps: int, decay_share: float) -> float:
    """Trapezoid: linear warm-up, constant, then linear decay to 0 over the last `decay_share`."""
    warmup = min(1.0, (step + 1) / max(1, warmup_steps))
    decay = min(1.0, (max_steps - step) / max(1.0, decay_share * max_steps))
    return warmup * decay
