"""Runs parts of training steps on request; `bench/train.py` starts one such process per case and allocator.

    python bench/measure_step.py CASE BATCH CONTENDER...

First the contenders are compared with the first of them: losses to 1e-4 and gradients to 5e-3 in float32, losses to a
tenth under autocast. Then a line of JSON says what there is, and every line "contender<TAB>part" on stdin is answered
by the seconds of processor time that this part took: with one thread they are those of a clock on a quiet machine, and
other processes disturb them less.
"""

import json
import statistics
import sys
import time
from typing import Any

import torch
from contenders.game import Game
from contenders.steps import GAMES
from measure_op import check_native, versions
from paired import seconds
from torch.nn.functional import conv2d

LOSS_TOLERANCE, GRADIENT_TOLERANCE, AUTOCAST_TOLERANCE = 1e-4, 5e-3, 0.1


def main() -> None:
    case, batch, *names = sys.argv[1:]
    torch.set_num_threads(1)
    check_native("cpu")
    games = {name: GAMES[case](name, int(batch)) for name in names}
    check_agreement(case, games)
    for game in games.values():
        game.G.counted = False  # the formulas draw from PyTorch's generator from here on, as their authors' code does
    facts = {"versions": versions("cpu"), "shares": next(iter(games.values())).shares}
    print(json.dumps(facts | {"bfloat16_speed": bfloat16_speed()}), flush=True)
    for line in sys.stdin:
        name, part = line.rstrip("\n").split("\t")
        begin = time.process_time()
        games[name].run(part)
        print(time.process_time() - begin, flush=True)


def check_agreement(case: str, games: dict[str, Game]) -> None:
    """End the program where a contender computes something else than the first."""
    (_, first), *others = games.items()
    for part in first.parts:
        loss, gradient = first.gradients(part), first.gradient(part)
        for name, game in others:
            errors = {"loss": _error(game.gradients(part), loss), "gradient": _error(game.gradient(part), gradient)}
            allowed = {"loss": LOSS_TOLERANCE, "gradient": GRADIENT_TOLERANCE}
            if game.autocast:
                allowed = {"loss": AUTOCAST_TOLERANCE}
            for what, limit in allowed.items():
                if not errors[what] <= limit:
                    sys.exit(f"{case}, {part}: the {what} of {name} is off by {errors[what]:.1e}, expected {limit:.0e}")


def _error(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def bfloat16_speed() -> float:
    """Return how many times as fast a convolution of bfloat16 numbers is here as one of float32 numbers."""
    x, w = (torch.randn(shape).to(memory_format=torch.channels_last) for shape in ((8, 128, 32, 32), (128, 128, 3, 3)))
    times: dict[Any, list[float]] = {torch.float32: [], torch.bfloat16: []}
    inputs = {dtype: (x.to(dtype), w.to(dtype)) for dtype in times}
    for _ in range(7):
        for dtype, values in times.items():
            values.append(seconds(lambda dtype=dtype: conv2d(*inputs[dtype], padding=1), 1, "cpu"))
    return statistics.median(a / b for a, b in zip(*times.values(), strict=True))


if __name__ == "__main__":
    main()
