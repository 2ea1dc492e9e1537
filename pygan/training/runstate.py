"""What survives a run: the tensors of its state by name, and the wish to stop."""

import logging
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from types import FrameType

import torch
from torch import Tensor, nn

from pygan.checkpoint import check_finite, subset
from pygan.errors import ConfigError

_log = logging.getLogger(__name__)


class StopFlag:
    """Set by SIGTERM, SIGINT or SIGUSR1 and read at step boundaries; a second signal ends the process at once.

    Args:
        answers: say on stderr that the signal was received, as one process of a training does.
    """

    def __init__(self, *, answers: bool = True) -> None:
        self.set = False
        self._answers = answers
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.set:
            os._exit(128 + number)
        self.set = True
        if self._answers:
            with suppress(OSError):  # stderr may be closed
                os.write(2, _ANSWER)  # a print inside a handler could interrupt another print


_ANSWER = b"\nstopping: saving the state after this step ... (a second signal ends the program without saving)\n"


class RunState:
    """Networks, average, regularizers and optimizers of a run as one flat dict of tensors.

    Names: `G.*`, `D.<i>.*`, `G_ema.*`, `regularizers.<class>.*`, and per optimizer `opt_G.<parameter>.<moment>`; by
    name, so that a run with more discriminators or other regularizers can continue one with fewer.

    Args:
        D: empty for a denoiser, which is `G` alone; `opt_D` is None then.
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
        opt_D: torch.optim.Adam | None,
        regularizers: Iterable[object] = (),
    ):
        self.networks = {"G": G, "D": D, "G_ema": G_ema, "regularizers": _by_class(regularizers)}
        self.optimizers = {"opt_G": (opt_G, G)} | ({} if opt_D is None else {"opt_D": (opt_D, D)})

    def tensors(self) -> dict[str, Tensor]:
        """Return the state, tensors shared with the run."""
        flat = {f"{name}.{k}": v for name, net in self.networks.items() for k, v in net.state_dict().items()}
        for name, (optimizer, network) in self.optimizers.items():
            for parameter_name, parameter in network.named_parameters():
                for moment, value in optimizer.state.get(parameter, {}).items():
                    flat[f"{name}.{parameter_name}.{moment}"] = value
        return flat

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor], source: str, *, partial: bool = False) -> dict[str, int]:
        """Take over a state; discriminators and regularizers that it lacks keep their initialization.

        Returns how many tensors of each network were taken.

        The state of a regularizer that this run does not have is dropped, and so is that of another augmentation.

        Args:
            tensors: names as in `tensors()`.
            source: where they come from, for messages.
            partial: take what fits by name and shape, and log how much that was.

        Raises:
            ConfigError: it belongs to another architecture; the message lists the first differences.
            DataError: a tensor is not finite.
        """
        check_finite(tensors, source)
        taken = {}
        for name, network in self.networks.items():
            have, want = subset(tensors, f"{name}."), network.state_dict()
            if name == "regularizers":
                have = {k: v for k, v in have.items() if k.split(".")[0] in network}
            if name == "D":
                have, want = _without_other_augmentations(have, want, source)
            wrong = self.differences(name, have, want)
            if wrong and not partial:
                raise ConfigError(f"{source}: does not fit {name}; first differences: {'; '.join(wrong[:3])}")
            taken[name] = {k: v for k, v in have.items() if k in want and v.shape == want[k].shape}
            network.load_state_dict(taken[name], strict=False)
            if partial:
                left = f", left {'; '.join(wrong[:3])}" if wrong else ""
                _log.info("%s: took %d of %d tensors for %s%s", source, len(taken[name]), len(want), name, left)
        for name, (optimizer, network) in self.optimizers.items():
            for parameter_name, parameter in network.named_parameters():
                moments = subset(tensors, f"{name}.{parameter_name}.")
                if moments and parameter_name in taken[name.removeprefix("opt_")]:
                    optimizer.state[parameter] = {
                        k: v.to(parameter.device, copy=True) if v.dim() == 0 else torch.empty_like(parameter).copy_(v)
                        for k, v in moments.items()
                    }
        return {name: len(found) for name, found in taken.items()}

    def differences(self, name: str, have: dict[str, Tensor], want: dict[str, Tensor]) -> list[str]:
        """Return what of a state does not fit, one clause per tensor."""
        known = {k.split(".")[0] for k in have}
        absent = [k for k in want if k not in have]
        wrong = [f"no {k}" for k in absent if name not in self._open_ended or k.split(".")[0] in known]
        wrong += [f"{k} is unknown" for k in have if k not in want]
        return wrong + [
            f"{k} is {list(v.shape)}, expected {list(want[k].shape)}"
            for k, v in have.items()
            if k in want and v.shape != want[k].shape
        ]


def _without_other_augmentations(
    have: dict[str, Tensor], want: dict[str, Tensor], source: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Leave out the state of an augmentation where a player has another one now, which starts anew."""
    for i in sorted({k.split(".")[0] for k in have} & {k.split(".")[0] for k in want}):
        prefix = f"{i}.augment."
        there, here = ({k: v.shape for k, v in side.items() if k.startswith(prefix)} for side in (have, want))
        if there != here:
            _log.info("%s: D.%s has another augmentation now, whose state starts anew", source, i)
            have, want = ({k: v for k, v in side.items() if not k.startswith(prefix)} for side in (have, want))
    return have, want


def _by_class(regularizers: Iterable[object]) -> nn.ModuleDict:
    """Return the regularizers that have a state by the name of their class."""
    modules = [regularizer for regularizer in regularizers if isinstance(regularizer, nn.Module)]
    named = {type(module).__name__: module for module in modules}
    if len(named) < len(modules):
        raise ValueError(f"regularizers: got {[type(m).__name__ for m in modules]}, expected each of them once")
    return nn.ModuleDict(named)
