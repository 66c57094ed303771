"""What differs between one training process and many: the collective operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All-gather along the first dimension whose backward sums the gradient of every rank.

    A rank's passages take part in every rank's loss, so their gradient is the sum over the ranks of
    the slices that belong to them. Averaging the parameters' gradients over the ranks afterwards
    gives the gradient of the mean loss of the global batch, with no further factor.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return _all_gather(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        own = gradient.new_empty((gradient.shape[0] // dist.get_world_size(), *gradient.shape[1:]))
        dist.reduce_scatter_single(own, gradient.contiguous(), op=dist.ReduceOp.SUM)
        return own


def _all_gather(tensor: Tensor) -> Tensor:
    gathered = tensor.new_empty((tensor.shape[0] * dist.get_world_size(), *tensor.shape[1:]))
    dist.all_gather_single(gathered, tensor.contiguous())
    return gathered


@dataclass(frozen=True)
class World:
    """The processes that train together, as one of them sees them.

    With one process every operation returns what it was given. With more, the caller has
    initialised `torch.distributed`'s default group, and every rank calls the same operations in
    the same order.

    Attributes:
        rank: this process, 0-based.
        size: number of processes.
        device: where this process computes, and where collectives find their tensors.
    """

    rank: int
    size: int
    device: torch.device

    @classmethod
    def single(cls, device: torch.device) -> World:
        """One process on its own."""
        return cls(0, 1, device)

    @classmethod
    def of_process_group(cls, device: torch.device) -> World:
        """This process within the initialised default group of `torch.distributed`."""
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @classmethod
    def current(cls, device: torch.device) -> World:
        """This process within the default group if there is one, else on its own."""
        return cls.of_process_group(device) if dist.is_initialized() else cls.single(device)

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, concatenated by rank: [B, ...] -> [size * B, ...].

        Differentiable: the gradients that all ranks hold for this rank's part are summed. All ranks
        give the same shape.
        """
        if self.size == 1:
            return tensor
        gathered: Tensor = _Gather.apply(tensor)  # type: ignore[no-untyped-call]
        return gathered

    def gather_no_grad(self, tensor: Tensor) -> Tensor:
        """As `gather`, without a gradient; also for integers."""
        return tensor if self.size == 1 else _all_gather(tensor.detach())

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the ranks, elementwise."""
        if self.size == 1:
            return values
        total = values.clone()
        dist.all_reduce(total, op=dist.ReduceOp.SUM)
        return total.div_(self.size)

    def minimum(self, value: int) -> int:
        """The smallest of the ranks' values."""
        if self.size == 1:
            return value
        smallest = torch.tensor(value, device=self.device)
        dist.all_reduce(smallest, op=dist.ReduceOp.MIN)
        return int(smallest)

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on any rank."""
        return self.minimum(int(not flag)) == 0

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the ranks, in one all-reduce.

        Parameters without a gradient are left out; they must be the same on every rank.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not gradients:
            return
        flat = self.mean(torch.cat([gradient.flatten() for gradient in gradients]))
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite every tensor with rank 0's."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            # A reduction instead of `dist.barrier`: that one guesses the device under NCCL.
            self.minimum(0)
