"""Times of whole training steps beside the same networks on the public formulas in plain PyTorch.

    python bench/train.py [--only stylegan2,sngan] [--seconds 90] [--out bench]

A step is one step of G and those of D, with Adam, the average, and lazy terms by their share. Its parts are timed one
at a time, every contender in turn and in another order each round; a ratio is the median over the rounds of (step of
the peer / step of ours), with an interval. Contenders may live in two processes, which wait for each other: one has
the allocator that pygan's programs set ("equal allocator", `pipeline/cli.py`), the other that of glibc as it is, with
which the peers are shipped. One thread each; seconds are those of the processor.

Writes train.json and train.md. With --only the result is printed unless --out names a folder.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data import machine
from ops import ALLOCATORS, AS_SHIPPED, EQUAL, ms
from paired import median_and_interval

HERE = Path(__file__).parent
FEWEST, MOST = 3, 15
"""Rounds of a case."""
BFLOAT16_GATE = "for processors that compute bfloat16 (avx512_bf16, AMX)"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """How many times as fast as `peer` our contender, with the equal allocator, has to be."""

    ours: str = "pygan"
    peer: str
    allocator: str = EQUAL
    """Of the peer."""
    gate: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    title: str
    batch: int
    comparisons: tuple[Comparison, ...]

    def contenders(self) -> dict[str, list[str]]:
        """Allocator to contenders, ours first."""
        found: dict[str, list[str]] = {EQUAL: ["pygan"]}
        for comparison in self.comparisons:
            for allocator, name in ((EQUAL, comparison.ours), (comparison.allocator, comparison.peer)):
                names = found.setdefault(allocator, [])
                if name not in names:
                    names.append(name)
        return found


CASES = {
    "stylegan2": Case(
        title="StyleGAN2, 32 pixels, 2.3 and 1.3 million parameters, R1 every 16 steps, path length every 4",
        batch=16,
        comparisons=(
            Comparison(peer="formulas", gate=1.25),
            Comparison(peer="formulas", allocator=AS_SHIPPED, gate=1.8),
            Comparison(ours="pygan, bfloat16", peer="formulas"),
            Comparison(ours="pygan, bfloat16", peer="formulas", allocator=AS_SHIPPED, gate=2.5, note=BFLOAT16_GATE),
        ),
    ),
    "sngan": Case(
        title="SNGAN, 32 pixels, 256 channels in G and 128 in D, five steps of D",
        batch=32,
        comparisons=(
            Comparison(peer="plain PyTorch"),
            Comparison(ours="pygan, bfloat16", peer="plain PyTorch", gate=2.4, note=BFLOAT16_GATE),
        ),
    ),
    "biggan": Case(
        title="BigGAN, 32 pixels, gSR's size for CIFAR, five steps of D",
        batch=8,
        comparisons=(Comparison(peer="pygan, contiguous"), Comparison(peer="pygan, bfloat16")),
    ),
    "dcgan": Case(
        title="DCGAN of the default study, R1 every 8 steps",
        batch=32,
        comparisons=(
            Comparison(peer="pygan, contiguous"),
            Comparison(peer="pygan, torch.compile"),
            Comparison(peer="pygan, bfloat16"),
        ),
    ),
}


class Worker:
    """A process with contenders of one allocator."""

    def __init__(self, case: str, allocator: str, names: list[str]) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("GLIBC_", "MALLOC_", "THP_"))}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "measure_step.py"), case, str(CASES[case].batch), *names],
            env=inherited | ALLOCATORS[allocator] | {"OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.facts = json.loads(self._answer())

    def seconds(self, name: str, part: str) -> float:
        """Run a part of a contender's step."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{name}\t{part}\n")
        self.process.stdin.flush()
        return float(self._answer())

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(self.process.wait() or 1)
        return line

    def close(self) -> None:
        self.process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(CASES), help="comma-separated cases (default: all)")
    parser.add_argument("--seconds", type=float, default=75.0, help="after which a case starts no further round")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    wanted = arguments.only.split(",")
    if unknown := set(wanted) - set(CASES):
        parser.error(f"--only: got {', '.join(sorted(unknown))}, expected some of {', '.join(CASES)}")
    result = {"command": " ".join(["python", *sys.argv]), "machine": machine(), "cases": {}}
    for case in wanted:
        result["cases"][case] = measure(case, arguments.seconds)
        print("\n".join(table_of(case, result["cases"][case])), flush=True)
    if out := arguments.out or (HERE if wanted == list(CASES) else None):
        (out / "train.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / "train.md").write_text(as_table(result))


def measure(name: str, limit: float) -> dict[str, Any]:
    """Run the rounds of a case."""
    case = CASES[name]
    workers = {allocator: Worker(name, allocator, names) for allocator, names in case.contenders().items()}
    facts = workers[EQUAL].facts
    places = [(allocator, contender) for allocator, names in case.contenders().items() for contender in names]
    rounds: list[dict[tuple[str, str], dict[str, float]]] = []
    shuffle = random.Random(0).shuffle
    start = time.monotonic()
    while len(rounds) < FEWEST or (len(rounds) < MOST and time.monotonic() - start < limit):
        times: dict[tuple[str, str], dict[str, float]] = {place: {} for place in places}
        for part in facts["shares"]:
            order = list(places)
            shuffle(order)
            for allocator, contender in order:
                times[allocator, contender][part] = workers[allocator].seconds(contender, part)
        rounds.append(times)
    for worker in workers.values():
        worker.close()
    rows = [as_row(comparison, facts["shares"], rounds) for comparison in case.comparisons]
    return facts | {"title": case.title, "batch": case.batch, "rounds": len(rounds), "rows": rows}


def as_row(comparison: Comparison, shares: dict[str, float], rounds: list[dict]) -> dict[str, Any]:
    """The median step of both, part by part, and the ratio with its interval."""
    ours, peer = (EQUAL, comparison.ours), (comparison.allocator, comparison.peer)

    def steps(place: tuple[str, str]) -> list[float]:
        return [sum(share * times[place][part] for part, share in shares.items()) for times in rounds]

    ratio, low, high = median_and_interval([a / b for a, b in zip(steps(peer), steps(ours), strict=True)])
    parts = {
        part: median_and_interval([times[peer][part] / times[ours][part] for times in rounds])[0] for part in shares
    }
    return {
        **vars(comparison),
        "seconds": median_and_interval(steps(ours))[0],
        "peer_seconds": median_and_interval(steps(peer))[0],
        "ratio": ratio,
        "low": low,
        "high": high,
        "parts": parts,
        "met": None if comparison.gate is None else ratio >= comparison.gate,
    }


def as_table(result: dict[str, Any]) -> str:
    where = result["machine"]
    facts = next(iter(result["cases"].values()))
    versions = facts["versions"]
    met = [row["met"] for case in result["cases"].values() for row in case["rows"] if row["met"] is not None]
    lines = [
        f"`{result['command']}`: {where['processor']} ({versions['isa']}), {where['cores']} cores, one thread, "
        f"torch {versions['torch']}, Python {where['python']}, {versions['libc']}, load {where['load_average']:.1f}.",
        "",
        "A ratio is a peer's training step over ours, in processor time: the median of paired rounds, with a 95 %",
        "interval (of fewer than six rounds, their extremes). pygan has the allocator of its programs throughout; the",
        "peer's is named.",
        "",
        f"A convolution of bfloat16 numbers is {facts['bfloat16_speed']:.2f} times as fast here as one of float32 "
        "numbers; that bounds the rows of bfloat16.",
        "",
        f"Gates met: {sum(met)} of {len(met)}.",
    ]
    for name, case in result["cases"].items():
        lines += ["", *table_of(name, case)]
    return "\n".join(lines) + "\n"


def table_of(name: str, case: dict[str, Any]) -> list[str]:
    lines = [
        f"## {name}",
        "",
        f"{case['title']}; batch {case['batch']}, {case['rounds']} rounds.",
        "",
        "| ours | its step, ms | peer | its allocator | its step, ms | ratio | of the parts | gate | |",
        "|---|---:|---|---|---:|---:|---|---:|---|",
    ]
    for row in case["rows"]:
        ratio = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        parts = ", ".join(f"{part} {value:.2f}" for part, value in row["parts"].items())
        gate = "" if row["gate"] is None else f"{row['gate']:g}"
        verdict = {None: "", True: "met", False: " ".join(["**red**", row["note"]]).strip()}[row["met"]]
        cells = [row["ours"], ms(row["seconds"]), row["peer"], row["allocator"], ms(row["peer_seconds"])]
        lines.append(f"| {' | '.join([*cells, ratio, parts, gate, verdict])} |")
    return lines


if __name__ == "__main__":
    main()
