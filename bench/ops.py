"""Times of the fused operators beside their public formulas in plain PyTorch and other peers.

    python bench/ops.py [--device cpu] [--ops upfirdn2d,bias_act] [--threads 1] [--repeats 11] [--quick] [--out bench]

The contenders of a case run in turn in one process, after their results were found to agree; a ratio is the median over
the rounds of (time of the peer / time of ours), with an interval. Every operator is measured twice on
a CPU, each time in a process of its own: with the allocator of glibc as it is ("as shipped"), and with the settings of
pygan's programs ("equal allocator", `pipeline/cli.py`), by which the gates are judged.

Writes ops.json and ops.md (ops_cuda.json and ops_cuda.md on a GPU). What is not the whole run, because of --quick or
--ops, is only printed unless --out names a folder.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from data import machine

HERE = Path(__file__).parent
OPS = ("upfirdn2d", "bias_act", "modulated_conv2d", "spectral_norm", "group_spectral_sigma")
AS_SHIPPED, EQUAL = "as shipped", "equal allocator"
ALLOCATORS = {
    AS_SHIPPED: {},
    EQUAL: {
        "GLIBC_TUNABLES": f"glibc.malloc.mmap_threshold={1 << 30}:glibc.malloc.trim_threshold={(1 << 31) - 1}",
        "THP_MEM_ALLOC_ENABLE": "1",
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--ops", default=",".join(OPS), help="comma-separated (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=11, help="rounds; slow cases have fewer")
    parser.add_argument("--quick", action="store_true", help="small inputs, three rounds, no gates")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    wanted = arguments.ops.split(",")
    if unknown := set(wanted) - set(OPS):
        parser.error(f"--ops: got {', '.join(sorted(unknown))}, expected some of {', '.join(OPS)}")
    result = {"command": " ".join(["python", *sys.argv]), "device": arguments.device, "threads": arguments.threads}
    result |= {"machine": machine(), "versions": {}, "copy_bytes_per_second": {}, "rows": []}
    for op in wanted:
        for allocator in ALLOCATORS if arguments.device == "cpu" else [AS_SHIPPED]:
            measured = measure(op, allocator, arguments)
            gated = arguments.device == "cpu" and allocator == EQUAL and not arguments.quick
            result["versions"] = measured["versions"]
            result["copy_bytes_per_second"][f"{op}, {allocator}"] = measured["copy_bytes_per_second"]
            result["rows"] += [{"op": op, "allocator": allocator, **judged(row, gated)} for row in measured["rows"]]
    table = as_table(result)
    print(table, end="")
    is_whole = not arguments.quick and wanted == list(OPS)
    if out := arguments.out or (HERE if is_whole else None):
        name = "ops" if arguments.device == "cpu" else "ops_cuda"
        (out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
        (out / f"{name}.md").write_text(table)


def measure(op: str, allocator: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one operator's cases in a process with that allocator."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("GLIBC_", "MALLOC_", "THP_"))}
    environment = inherited | ALLOCATORS[allocator] | {"OMP_NUM_THREADS": str(arguments.threads)}
    command = [sys.executable, str(HERE / "measure_op.py"), op, "--device", arguments.device]
    command += ["--threads", str(arguments.threads), "--repeats", str(3 if arguments.quick else arguments.repeats)]
    command += ["--fewest", "3" if allocator == AS_SHIPPED else "6", *(["--quick"] if arguments.quick else [])]
    print(f"{op}, {allocator}", file=sys.stderr, flush=True)
    finished = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
    if finished.returncode:
        sys.exit(finished.returncode)
    return json.loads(finished.stdout.splitlines()[-1])


def judged(row: dict[str, Any], gated: bool) -> dict[str, Any]:
    """The row with `met` for each peer that has a gate; without gates where they do not count."""
    peers = []
    for peer in row["peers"]:
        gate = peer["gate"] if gated else None
        peers.append(peer | {"gate": gate, "met": None if gate is None else peer["ratio"] >= gate})
    return row | {"peers": peers}


def as_table(result: dict[str, Any]) -> str:
    where, versions = result["machine"], result["versions"]
    device = versions.get("gpu") or f"{where['processor']} ({versions['isa']}), {where['cores']} cores"
    rates = [rate / 1e9 for rate in result["copy_bytes_per_second"].values()]
    judgments = [peer["met"] for row in result["rows"] for peer in row["peers"] if peer["met"] is not None]
    lines = [
        f"`{result['command']}`: {device}, threads {result['threads']}, torch {versions['torch']}, "
        f"Python {where['python']}, {versions['libc']}, load {where['load_average']:.1f}.",
        "",
        "A ratio is a peer's time over ours: the median of paired rounds, with a 95 % interval (of fewer than six",
        "rounds, their extremes). The floor is the time to read every input and write every output once at the",
        f"bandwidth of a large copy in the same process ({min(rates):.1f} to {max(rates):.1f} GB/s); what fits into",
        "the cache can be faster.",
        "",
        f"Gates met: {sum(judgments)} of {len(judgments)}.",
    ]
    for allocator in ALLOCATORS:
        for op in OPS:
            rows = [row for row in result["rows"] if (row["op"], row["allocator"]) == (op, allocator)]
            if rows:
                lines += ["", f"## {op}, {allocator}", "", *table_of(rows)]
    return "\n".join(lines) + "\n"


def table_of(rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "| case | layout | mode | ours, ms | floor, ms | times floor | peer | its ms | ratio | gate | |",
        "|---|---|---|---:|---:|---:|---|---:|---:|---:|---|",
    ]
    for row in rows:
        ours, floor = row["seconds"], row["floor_seconds"]
        start = f"| {row['case']} | {row['layout']} | {row['mode']} | {ms(ours)} | {ms(floor)} | {ours / floor:.1f} "
        for peer in row["peers"]:
            ratio = f"{peer['ratio']:.2f} ({peer['low']:.2f} to {peer['high']:.2f})"
            gate = "" if peer["gate"] is None else f"{peer['gate']:g}"
            verdict = {None: "", True: "met", False: "**red**"}[peer["met"]]
            lines.append(f"{start}| {peer['name']} | {ms(peer['seconds'])} | {ratio} | {gate} | {verdict} |")
            start = "| " * 6
    return lines


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


if __name__ == "__main__":
    main()
