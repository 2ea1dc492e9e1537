"""Measures the cases of one operator in this process; `bench/ops.py` runs it once per operator and allocator.

Prints a JSON object on stdout and its progress on stderr.
"""

import argparse
import importlib
import json
import math
import platform
import statistics
import sys
from typing import Any

import torch
from contenders.case import Case
from paired import copy_bandwidth, median_and_interval, rounds_of

from pygan import ops

Rounds = dict[str, list[float]]
"""Contender, ours first -> seconds a call, round by round."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("op")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--fewest", type=int, default=6, help="rounds after which --limit counts")
    parser.add_argument("--limit", type=float, default=4.0, help="seconds after which a case has no further round")
    parser.add_argument("--quick", action="store_true", help="small inputs, no torch.compile")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    check_native(arguments.device)
    contenders = importlib.import_module(f"contenders.{arguments.op}")
    bandwidth = copy_bandwidth(arguments.device)
    rows: list[dict[str, Any]] = []
    by_mode: dict[str, list[Rounds]] = {}
    for case in contenders.cases(arguments.device, arguments.quick):
        check_agreement(arguments.op, case)
        rounds = rounds_of(
            case.contenders | case.yardsticks,
            device=arguments.device,
            repeats=arguments.repeats,
            fewest=arguments.fewest,
            limit=arguments.limit,
        )
        facts = {"case": case.name, "layout": case.layout, "mode": case.mode, "headline": case.headline}
        rows.append(facts | as_row(rounds, case.gates, case.floor_bytes / bandwidth))
        by_mode.setdefault(case.mode, []).append(rounds)
        report(arguments.op, rows[-1])
    for mode, gates in getattr(contenders, "MEAN_GATES", {}).items():
        facts = {"case": "geometric mean", "layout": "", "mode": mode, "headline": True}
        floor = statistics.geometric_mean([row["floor_seconds"] for row in rows if row["mode"] == mode])
        rows.append(facts | as_row(mean_rounds(by_mode[mode]), gates, floor))
        report(arguments.op, rows[-1])
    print(json.dumps({"versions": versions(arguments.device), "copy_bytes_per_second": bandwidth, "rows": rows}))


def check_native(device: str) -> None:
    """End the program where the compiled operators, which it measures, are not in use."""
    built = ops.build_info()
    if not built:
        sys.exit(f"nothing to measure: {ops.backend_reason()}")
    if device == "cuda" and not built["cuda_archs"]:
        sys.exit(f"nothing to measure: {built['path']} was built without CUDA kernels")


def check_agreement(op: str, case: Case) -> None:
    """End the program where a contender computes something else than ours."""
    ours, *others = ((name, [tensor.double() for tensor in run()]) for name, run in case.contenders.items())
    for name, theirs in others:
        for i, (a, b) in enumerate(zip(ours[1], theirs, strict=True)):
            error = ((a - b).norm() / b.norm()).item() if a.shape == b.shape else math.inf
            if not error <= case.tolerance:
                where = f"{op}, {case.name}, {case.layout}, {case.mode}"
                what = f"gradient {i}" if i else "the output"
                sys.exit(f"{where}: pygan and {name} differ by {error:.1e} in {what}, expected {case.tolerance:.0e}")


def as_row(rounds: Rounds, gates: dict[str, float], floor_seconds: float) -> dict[str, Any]:
    """Our time, and every peer's time and ratio to ours in the median round, with an interval."""
    ours = rounds["pygan"]
    peers = []
    for name, theirs in list(rounds.items())[1:]:
        ratio, low, high = median_and_interval([a / b for a, b in zip(theirs, ours, strict=True)])
        times = {"seconds": statistics.median(theirs), "ratio": ratio, "low": low, "high": high}
        peers.append({"name": name, **times, "gate": gates.get(name)})
    seconds = statistics.median(ours)
    return {"rounds": len(ours), "seconds": seconds, "floor_seconds": floor_seconds, "peers": peers}


def mean_rounds(cases: list[Rounds]) -> Rounds:
    """The geometric means of several cases, round by round, as many as all of them have."""
    names = cases[0]
    return {
        name: [statistics.geometric_mean(values) for values in zip(*(case[name] for case in cases), strict=False)]
        for name in names
    }


def report(op: str, row: dict[str, Any]) -> None:
    peers = ", ".join(f"{peer['name']} {peer['ratio']:.2f}" for peer in row["peers"])
    where = f"{op}, {row['case']}, {row['layout']}, {row['mode']}"
    print(f"{where}: {row['seconds'] * 1000:.3f} ms, {peers}", file=sys.stderr, flush=True)


def versions(device: str) -> dict[str, Any]:
    """What the numbers depend on, as far as this process knows it."""
    built = ops.build_info()
    facts = {"torch": torch.__version__, "torch_cpu_capability": torch.backends.cpu.get_cpu_capability()}
    facts |= {key: built[key] for key in ("isa", "compiler", "cuda_archs")}
    facts["libc"] = " ".join(platform.libc_ver())
    if device == "cuda":
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


if __name__ == "__main__":
    main()
