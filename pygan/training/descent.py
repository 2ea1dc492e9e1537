"""Moving the weights of a network: gradients of micro-batches, averaged over the processes, and one step of Adam."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from pygan.pruning.masks import Masked
from pygan.training.distributed import Ranks
from pygan.training.spec import TrainingSpec

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Descent:
    """A network and the Adam that moves it.

    Args:
        lr: of Adam.
        betas: of Adam.
        masked: the weights of `network` that stay zero.
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float,
        betas: tuple[float, float],
        masked: Masked,
        spec: TrainingSpec,
        ranks: Ranks,
    ) -> None:
        self.network = network
        self.masked = masked
        self.spec = spec
        self.ranks = ranks
        self.optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=betas, eps=spec.adam_eps, fused=True)
        self.scaler = torch.amp.GradScaler(ranks.device.type, enabled=spec.precision == "fp16")

    def micro_batches(self, share: Tensor) -> tuple[Tensor, ...]:
        """Return the parts of this process's samples that are computed at a time."""
        return share.split(self.spec.batch_gpu or len(share))

    def begin(self) -> None:
        """Forget the gradients of the last move."""
        self.optimizer.zero_grad(set_to_none=True)

    def add(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        self.scaler.scale(loss).backward()

    def apply(self) -> None:
        """Move the weights along the gradients, those of all processes together."""
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        self.ranks.mean_(gradients)
        self.scaler.unscale_(self.optimizer)
        if self.spec.sanitize_gradients:
            for gradient in gradients:
                torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)
        self.masked.zero_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.masked.zero_weights()

    def autocast(self) -> AbstractContextManager:
        """Compute in the precision of the training."""
        dtype = AUTOCAST.get(self.spec.precision)
        return nullcontext() if dtype is None else torch.autocast(self.ranks.device.type, dtype)
