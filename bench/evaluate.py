"""What an evaluation costs beside clean-fid and torch-fidelity: distance, resize, features; one thread, paired.

`OMP_NUM_THREADS=1 python bench/evaluate.py` writes `evaluate.json` and `evaluate.md` beside itself in about twenty
minutes, most of them spent in SciPy's matrix root; `--quick` tries everything in one minute with fewer dimensions and
writes nothing, `--only frechet|resize|features` measures a part anew and keeps the others. All contenders of a case get
the same features or pictures, and the program ends where their results differ by more than they may. Times are
processor time of the one thread, which neighbors on the machine disturb less than they disturb wall time.
"""

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cleanfid.fid
import numpy as np
import torch
import torch_fidelity.feature_extractor_inceptionv3 as fidelity
from cleanfid.resize import make_resizer
from paired import median_and_interval
from torch import Tensor
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

from pygan.features.inception_v3 import InceptionV3
from pygan.metrics.frechet import Gaussian, distance, frechet_distance
from pygan.metrics.resize import resize

HERE = Path(__file__).with_suffix("")
PARTS = ("frechet", "resize", "features")
Run = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """Two contenders and what their results may differ by."""

    part: str
    name: str
    peer: str
    theirs: Run
    ours: Run
    gate: float | None
    """How many times as fast ours has to be; None: no gate."""
    apart: Callable[[Any, Any], float]
    at_most: float
    unit: str


def features(n: int, dimensions: int, seed: int) -> np.ndarray:
    """Float32 `[n, dimensions]`: variances fall over six orders of magnitude, as those of networks do."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(dimensions, dimensions, generator=torch.Generator().manual_seed(0))).Q
    scale = (1 + 0.1 * seed) * torch.arange(1, dimensions + 1) ** -0.8
    return (torch.randn(n, dimensions, generator=generator) * scale @ turn + 0.4).numpy()


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As clean-fid takes them, but for the mean, which it sums in single precision."""
    return x.mean(0, dtype=np.float64), np.cov(x, rowvar=False)


def theirs_from(real: np.ndarray | tuple[np.ndarray, np.ndarray], gen: np.ndarray) -> float:
    stored = real if isinstance(real, tuple) else moments(real)
    return float(cleanfid.fid.frechet_distance(*stored, *moments(gen)))


def frechet_cases(dimensions: int) -> Iterable[Case]:
    common = {
        "part": "frechet",
        "peer": "clean-fid",
        "apart": lambda a, b: abs(a - b) / abs(a),
        "at_most": 1e-6,
        "unit": "relative",
    }
    sizes = [size * dimensions // 2048 for size in (5_000, 10_000, 50_000)]
    real = features(sizes[1], dimensions, 0)
    stored, reference = moments(real), Gaussian.of(torch.from_numpy(real))
    for size in sizes:
        gen = features(size, dimensions, 1)
        yield Case(
            name=f"{size:,} generated x {dimensions}, stored reference",
            theirs=lambda gen=gen: theirs_from(stored, gen),
            ours=lambda gen=gen: distance(reference, Gaussian.of(torch.from_numpy(gen))),
            gate=10 if size == sizes[0] else None,
            **common,
        )
    gen = features(sizes[1], dimensions, 1)
    yield Case(
        name=f"{sizes[1]:,} real and as many generated x {dimensions}",
        theirs=lambda: theirs_from(real, gen),
        ours=lambda: frechet_distance(torch.from_numpy(real), torch.from_numpy(gen)),
        gate=None,
        **common,
    )
    mean, covariance = moments(gen)
    fitted = Gaussian.of(torch.from_numpy(gen))
    yield Case(
        name=f"from two sets of moments, {dimensions} dimensions",
        theirs=lambda: float(cleanfid.fid.frechet_distance(*stored, mean, covariance)),
        ours=lambda: distance(
            Gaussian.of_covariance(torch.from_numpy(stored[0]), torch.from_numpy(stored[1]), sizes[1]),
            Gaussian.of_covariance(fitted.mean, torch.from_numpy(covariance), sizes[1]),
        ),
        gate=10,
        **common,
    )


def resize_cases(count: int) -> Iterable[Case]:
    clean = make_resizer("PIL", False, "bicubic", (299, 299))
    for side in (32, 64, 256):
        images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
        arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
        common = {
            "part": "resize",
            "apart": lambda a, b: float((_stacked(a) - _stacked(b)).abs().max()),
            "at_most": 1e-4,
            "unit": "on 0..255",
        }
        yield Case(
            name=f"clean, {count} pictures {side} to 299",
            peer="clean-fid",
            theirs=lambda arrays=arrays: [clean(a) for a in arrays],
            ours=lambda images=images: [resize(part, 299) for part in images.split(10)],
            gate=4 if side == 32 else None,
            **common,
        )
        yield Case(
            name=f"legacy_tensorflow, {count} pictures {side} to 299",
            peer="torch-fidelity",
            theirs=lambda images=images: [
                interpolate_bilinear_2d_like_tensorflow1x(part.float(), size=(299, 299), align_corners=False)
                for part in images.split(10)
            ],
            ours=lambda images=images: [resize(part, 299, "legacy_tensorflow") for part in images.split(10)],
            gate=None,
            **common,
        )


def _stacked(result: list) -> Tensor:
    """All pictures `[N, 3, 299, 299]`, of arrays `[299, 299, 3]` or of batches."""
    if isinstance(result[0], Tensor):
        return torch.cat(result)
    return torch.from_numpy(np.stack(result)).permute(0, 3, 1, 2)


def public_inception() -> torch.nn.Module:
    """torch-fidelity's network with random weights; its resize is left out."""

    class Untrained(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state: dict, **options: object) -> None:
            """Keep the constructor's weights."""

    fidelity.load_state_dict_from_url = lambda *args, **options: {}
    fidelity.interpolate_bilinear_2d_like_tensorflow1x = lambda x, *args, **options: x
    network = Untrained("random", ["2048"])
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
    return network


def feature_cases(count: int) -> Iterable[Case]:
    public = public_inception()
    network = InceptionV3("inception_v3", 128.0, None)
    network.load(public.state_dict())
    network.freeze()
    images = torch.randint(0, 256, (count, 3, 299, 299), dtype=torch.uint8)
    yield Case(
        part="features",
        name=f"InceptionV3, {count} pictures of 299 pixels",
        peer="torch-fidelity, contiguous, batch norms apart",
        theirs=lambda: public(images)[0],
        ours=lambda: network.pooled(images / 127.5 - 1),
        gate=1.4,
        apart=lambda a, b: float(((a - b).norm(dim=1) / a.norm(dim=1)).max()),
        at_most=1e-4,
        unit="relative",
    )


@torch.no_grad()
def measured(case: Case, rounds: int) -> dict[str, Any]:
    """Run the contenders in turn, the order reversed from round to round; end the program where they disagree."""
    runs = {"theirs": case.theirs, "ours": case.ours}
    apart = case.apart(case.theirs(), case.ours())
    if not apart <= case.at_most:
        raise SystemExit(f"{case.name}: results differ by {apart:.2g} {case.unit}, expected {case.at_most:g}")
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for place in range(rounds):
        for name in sorted(runs, reverse=place % 2 == 0):
            start = time.process_time()
            runs[name]()
            seconds[name].append(time.process_time() - start)
    ratio, low, high = median_and_interval([a / b for a, b in zip(seconds["theirs"], seconds["ours"], strict=True)])
    row = {
        "part": case.part,
        "case": case.name,
        "peer": case.peer,
        "seconds_theirs": median_and_interval(seconds["theirs"])[0],
        "seconds_ours": median_and_interval(seconds["ours"])[0],
        "ratio": ratio,
        "low": low,
        "high": high,
        "rounds": rounds,
        "apart": apart,
        "unit": case.unit,
        "gate": case.gate,
    }
    print(json.dumps(row), file=sys.stderr)
    return row


def table(parts: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# Evaluation beside clean-fid and torch-fidelity",
        "",
        "`OMP_NUM_THREADS=1 python bench/evaluate.py`. Processor time of one thread; ratio: median and range (95 % "
        "interval from six rounds on) over paired rounds.",
    ]
    for part, measurement in parts.items():
        lines += [
            "",
            f"## {part.capitalize()}",
            f"{measurement['surroundings']}.",
            "",
            "| case | peer | theirs, s | ours, s | times as fast | results apart | gate |",
            "|---|---|---:|---:|---|---|---|",
            *(as_line(row) for row in measurement["rows"]),
        ]
    return "\n".join(lines) + "\n"


def as_line(row: dict[str, Any]) -> str:
    gate = "" if row["gate"] is None else f"{row['gate']:g}: " + ("met" if row["ratio"] >= row["gate"] else "**red**")
    return (
        f"| {row['case']} | {row['peer']} | {row['seconds_theirs']:.3g} | {row['seconds_ours']:.3g} | "
        f"{row['ratio']:.3g} ({row['low']:.3g} to {row['high']:.3g}) | {row['apart']:.1g} {row['unit']} | {gate} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer dimensions and rounds; nothing is written")
    parser.add_argument("--only", choices=PARTS, help="one part; what is written of the others stays")
    options = parser.parse_args()
    warnings.simplefilter("ignore", DeprecationWarning)  # clean-fid's call of SciPy
    torch.set_num_threads(1)
    torch.manual_seed(0)
    quick = options.quick
    cases = {
        "frechet": (lambda: frechet_cases(512 if quick else 2048), 2 if quick else 5),
        "resize": (lambda: resize_cases(20 if quick else 100), 3 if quick else 15),
        "features": (lambda: feature_cases(2 if quick else 8), 2 if quick else 9),
    }
    names = ("torch", "numpy", "scipy", "clean-fid", "torch-fidelity", "pillow")
    surroundings = f"{os.cpu_count()} cores ({platform.machine()}), load {os.getloadavg()[0]:.1f}, " + ", ".join(
        f"{name} {version(name)}" for name in names
    )
    record = HERE.with_suffix(".json")
    parts = json.loads(record.read_text()) if options.only and not quick else {}
    for part, (make, rounds) in cases.items():
        if options.only in (None, part):
            rows = [measured(case, rounds) for case in make()]
            parts[part] = {"surroundings": surroundings, "rows": rows}
    if quick:
        print(table(parts))
        return
    record.write_text(json.dumps(parts, indent=1) + "\n")
    HERE.with_suffix(".md").write_text(table(parts))


if __name__ == "__main__":
    main()
