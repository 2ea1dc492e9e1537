"""Which GPUs a program takes of those that are visible: locked files keep programs side by side apart.

Only the standard library is imported, because GPUs are taken before PyTorch may start CUDA.
"""

import fcntl
import os
import tempfile
from itertools import count
from pathlib import Path

from pygan.devices import Gpus, visible_gpus
from pygan.errors import CannotWrite, ConfigError
from pygan.wording import number_of

LAUNCHED = "PYGAN_LAUNCHED"
"""Environment variable that is set in the processes of a training which torchrun started for pygan."""
_LOCKS = "PYGAN_GPU_LOCKS"
"""Environment variable with the locked files of the GPUs that a program has taken."""


def claim(n: int, gpus: Gpus, folder: Path | None = None) -> tuple[str, ...]:
    """Take `n` GPUs for this process and the processes of its training, those first that the fewest programs have.

    CUDA_VISIBLE_DEVICES names them from then on. A locked file stands for a GPU that is taken. The kernel drops a lock
    when the last process that holds it ends, however it ends.

    Args:
        n: how many, at least 1.
        gpus: among which.
        folder: of the locked files; None: the system's folder for temporary files.

    Raises:
        ConfigError: there are fewer.
        CannotWrite: a file cannot be locked.
    """
    if n > len(gpus.ids):
        raise ConfigError(f"gpus: got {n}, expected at most {len(gpus.ids)} ({gpus.why})")
    taken: dict[str, Path] = {}
    for turn in count():
        for gpu, card in zip(gpus.ids, gpus.cards or gpus.ids, strict=True):
            name = f"pygan-{os.getuid()}-{card.replace('/', '_')}-{turn}.lock"
            path = (folder or Path(tempfile.gettempdir())) / name
            if len(taken) < n and gpu not in taken and _lock(path):
                taken[gpu] = path
        if len(taken) == n:
            break
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(taken)
    os.environ[_LOCKS] = os.pathsep.join(map(str, taken.values()))
    return tuple(taken)


def _lock(path: Path) -> bool:
    """Lock a file for as long as this process runs; return False where another program holds it."""
    file = _opened(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    except OSError as error:
        raise CannotWrite(
            f"{path}: this file cannot be locked, which marks a GPU as taken ({error.strerror})"
        ) from error
    fcntl.flock(file, fcntl.LOCK_SH)  # the processes of the training hold it as well
    os.set_inheritable(file, True)
    return True


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CannotWrite(
            f"{path}: this file cannot be opened, which marks a GPU as taken ({error.strerror})"
        ) from error


def _hold_what_was_claimed() -> None:
    """Hold the locks of the process that started torchrun, whose end would free the GPUs otherwise."""
    for path in filter(None, os.environ.get(_LOCKS, "").split(os.pathsep)):
        fcntl.flock(_opened(Path(path)), fcntl.LOCK_SH)


def take(gpus: int, processes: int = 1) -> dict[str, str]:
    """Take GPUs for this process and all that it starts, or hide them all; return the `type` of device and `why`.

    Args:
        gpus: how many the program may use.
        processes: of a training; each one has a GPU of its own where the program may use any.

    Raises:
        ConfigError: there is not one GPU for each process, or fewer GPUs are visible than were granted.
        CannotWrite: a file that marks a GPU as taken cannot be written.
    """
    if gpus not in (0, processes):
        raise ConfigError(
            f"--gpus: got {gpus} for {number_of(processes, 'process', 'processes')}, expected {processes}, one for "
            "each, or 0, which computes on the CPU"
        )
    visible = visible_gpus()
    if gpus and is_launched():
        _hold_what_was_claimed()
    elif gpus:
        claimed = claim(gpus, visible)
        if processes > 1 and any(gpu.startswith("MIG") for gpu in claimed):
            raise ConfigError(f"processes: got {processes} with MIG instances, of which a process sees one: expected 1")
    if gpus:
        return {"type": "cuda", "why": f"{number_of(gpus, 'GPU')} granted"}
    if processes == 1 or is_launched():
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return {"type": "cpu", "why": f"no GPU granted, of {visible.why}" if visible.ids else visible.why}


def is_launched() -> bool:
    """Return whether torchrun started this process for pygan."""
    return LAUNCHED in os.environ
