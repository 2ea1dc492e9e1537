"""What survives a run: the tensors of its state by name, and the wish to stop."""

import os
import signal
from collections.abc import Iterable
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
    """Networks, average, regularizers and optimizers of a run as one flat dict of tensors.

    Names: `G.*`, `D.<i>.*`, `G_ema.*`, `regularizers.<class>.*`, and per optimizer `opt_G.<parameter>.<moment>`; by
    name, so that a run with more discriminators or other regularizers can continue one with fewer.

    Args:
        regularizers: those that are modules have a state: their buffers.

    Raises:
        ValueError: two regularizers with a state are of one class.
    """

    _open_ended = ("D", "regularizers")
    """Lists of parts; a part that a state lacks keeps its initialization."""

    def __init__(
        self,
        G: nn.Module,
        D: nn.ModuleList,
        G_ema: nn.Module,
        opt_G: torch.optim.Adam,
        opt_D: torch.optim.Adam,
        regularizers: Iterable[object] = (),
    ):
        self.networks = {"G": G, "D": D, "G_ema": G_ema, "regularizers": _by_class(regularizers)}
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
        """Take over a state; discriminators and regularizers that it lacks keep their initialization.

        The state of a regularizer that this run does not have is dropped.

        Raises:
            DataError: it belongs to another architecture; the message lists the first differing names.
        """
        for name, network in self.networks.items():
            have, want = subset(tensors, f"{name}."), network.state_dict()
            if name == "regularizers":
                have = {k: v for k, v in have.items() if k.split(".")[0] in network}
            absent = [k for k in want if k not in have]
            known = {k.split(".")[0] for k in have}
            wrong = [k for k in absent if name not in self._open_ended or k.split(".")[0] in known]
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


def _by_class(regularizers: Iterable[object]) -> nn.ModuleDict:
    """Return the regularizers that have a state by the name of their class."""
    modules = [regularizer for regularizer in regularizers if isinstance(regularizer, nn.Module)]
    named = {type(module).__name__: module for module in modules}
    if len(named) < len(modules):
        raise ValueError(f"regularizers: got {[type(m).__name__ for m in modules]}, expected each of them once")
    return nn.ModuleDict(named)
