"""What survives a run: the tensors of its state by name, and the wish to stop."""

import os
import signal
from types import FrameType

import torch
from torch import Tensor, nn

from pygan.checkpoint import subset
from pygan.errors import DataError


class StopFlag:
    """Set by SIGTERM, SIGINT or SIGUSR1 and read at step boundaries; a second signal ends the process at once."""

    def __init__(self) -> None:
        self.set = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.set:
            os._exit(128 + number)
        self.set = True


class RunState:
    """Networks, average and optimizers of a run as one flat dict of tensors.

    Names: `G.*`, `D.<i>.*`, `G_ema.*`, and per optimizer `opt_G.<parameter>.<moment>`; by name, so that a run with more
    discriminators can continue one with fewer.
    """

    def __init__(
        self, G: nn.Module, D: nn.ModuleList, G_ema: nn.Module, opt_G: torch.optim.Adam, opt_D: torch.optim.Adam
    ):
        self.networks = {"G": G, "D": D, "G_ema": G_ema}
        self.optimizers = {"opt_G": (opt_G, G), "opt_D": (opt_D, D)}

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, tensors shared with the run."""
        flat = {f"{name}.{k}": v for name, net in self.networks.items() for k, v in net.state_dict().items()}
        for name, (optimizer, network) in self.optimizers.items():
            for parameter_name, parameter in network.named_parameters():
                for moment, value in optimizer.state.get(parameter, {}).items():
                    flat[f"{name}.{parameter_name}.{moment}"] = value
        return flat

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], source: str) -> None:
        """Take over a state; discriminators that it lacks keep their initialization.

        Raises:
            DataError: it belongs to another architecture; the message lists the first differing names.
        """
        for name, network in self.networks.items():
            have, want = subset(tensors, f"{name}."), network.state_dict()
            absent = [k for k in want if k not in have]
            known = {k.split(".")[0] for k in have}
            wrong = [k for k in absent if name != "D" or k.split(".")[0] in known]
            wrong += [k for k in have if k not in want or have[k].shape != want[k].shape]
            if wrong:
                raise DataError(f"{source}: does not fit {name}; first differences: {', '.join(wrong[:3])}")
            network.load_state_dict(have, strict=False)
        for name, (optimizer, network) in self.optimizers.items():
            for parameter_name, parameter in network.named_parameters():
                moments = subset(tensors, f"{name}.{parameter_name}.")
                if moments:
                    optimizer.state[parameter] = {
                        k: v.clone() if v.dim() == 0 else torch.empty_like(parameter).copy_(v)
                        for k, v in moments.items()
                    }
