"""What the CUDA kernels ask of a GPU, beside what an H100 could do: without a GPU.

    python bench/roofline.py [--out bench]

The emulator of tests/csrc traces the large cases of tests/csrc/<op>_cases.cpp: sectors of global memory, wavefronts of
shared memory, and the floating point instructions that were executed. The floor reads every input once and writes every
output once, and does that arithmetic; the plan moves what was traced. nvcc then builds the same sources, timed, and its
result is read for registers and occupancy. Writes roofline.json and roofline.md.
"""

import argparse
import dataclasses
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import compiled
import emulated

# H100 SXM, from its data sheet and NVIDIA's tuning guide.
_BYTES_PER_SECOND = 3.35e12
_FLOPS_PER_SECOND = 67e12  # float32, outside of the tensor cores
_WAVEFRONTS_PER_SECOND = 132 * 1.98e9  # 128 bytes a clock of each multiprocessor, shared memory and L1 together
_SECTOR_BYTES = 32
_SECTORS_OF_WAVEFRONT = 4

_PLANNED_GATE = 1.4
_LARGE_BYTES = 16e6
_BUILD_GATE_SECONDS = 90

_EXPLANATION = """\
`{command}`; no GPU was used, all is counted by the emulator. Requested: 32 bytes for every sector that a request of
a warp touches. Memory: the same, each sector once in a block, as the L1 cache leaves it. Operations are executed
instructions; for float16 and bfloat16 they include the conversions, which a GPU does in hardware. Floor: each input
read once, each output written once at 3.35 TB/s, or the operations at 67 TFLOP/s. Planned: the memory traffic, the
operations, or the wavefronts of shared memory and of requests (128 bytes a clock of 132 multiprocessors at 1.98 GHz),
whichever takes longest. Gate from 16 MB on: {gate} times the floor.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    traces = list(emulated.traces("large"))
    launches = [launch for trace in [*traces, *emulated.traces("small")] for launch in trace.launches]
    with tempfile.TemporaryDirectory() as folder:
        objects, build_time = compiled.compile_all(Path(folder))
        kernels = summarize(list(compiled.kernels(objects)), launches)
    result = {
        "command": "python bench/roofline.py",
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "cases": [plan(trace) for trace in traces],
        "kernels": kernels,
        "nvcc": {**dataclasses.asdict(build_time), "gate_seconds": _BUILD_GATE_SECONDS},
    }
    table = as_table(result)
    (arguments.out / "roofline.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "roofline.md").write_text(table)
    print(table, end="")


def plan(trace: emulated.Trace) -> dict[str, Any]:
    """Return the times of one case on an H100, in microseconds, from what was counted."""
    ideal_bytes = trace.input_bytes + trace.output_bytes
    sectors = trace.read_sectors + trace.written_sectors
    seconds_of_flops = trace.flops / _FLOPS_PER_SECOND
    floor = max(ideal_bytes / _BYTES_PER_SECOND, seconds_of_flops)
    bounds = {
        "memory": _SECTOR_BYTES * trace.block_sectors / _BYTES_PER_SECOND,
        "arithmetic": seconds_of_flops,
        "loads and stores": (trace.wavefronts + sectors / _SECTORS_OF_WAVEFRONT) / _WAVEFRONTS_PER_SECOND,
    }
    planned = max(bounds.values())
    is_large = ideal_bytes >= _LARGE_BYTES
    return {
        "case": trace.case,
        "launches": len(trace.launches),
        "ideal_bytes": ideal_bytes,
        "requested_bytes": _SECTOR_BYTES * sectors,
        "memory_bytes": _SECTOR_BYTES * trace.block_sectors,
        "wavefronts": trace.wavefronts,
        "flops": trace.flops,
        "floor_us": floor * 1e6,
        "planned_us": planned * 1e6,
        "bound": max(bounds, key=lambda name: bounds[name]),
        "ratio": planned / floor,
        "within_gate": planned / floor <= _PLANNED_GATE if is_large else None,
    }


def summarize(kernels: list[compiled.Kernel], launches: list[emulated.Launch]) -> list[dict[str, Any]]:
    """Return the worst of all instantiations of each kernel, for each architecture."""
    shared_of_launch = defaultdict(int)
    for launch in launches:
        shared_of_launch[launch.kernel] = max(shared_of_launch[launch.kernel], launch.dynamic_shared_bytes)
    groups, shared = defaultdict(list), defaultdict(int)
    for kernel in kernels:
        name = f"{kernel.op}: {name_of(kernel.name)}"
        groups[name, kernel.arch].append(kernel)
        shared[name] = max(shared[name], shared_of_launch[kernel.name])
    return [
        {
            "kernel": name,
            "arch": arch,
            "instantiations": len(group),
            "threads": max(kernel.max_threads for kernel in group),
            "registers": max(kernel.registers for kernel in group),
            "stack_bytes": max(max(kernel.stack_bytes, kernel.local_bytes) for kernel in group),
            "static_shared_bytes": max(kernel.static_shared_bytes for kernel in group),
            "dynamic_shared_bytes": shared[name],
            "occupancy": min(kernel.occupancy(kernel.max_threads, shared[name]) for kernel in group),
        }
        for (name, arch), group in sorted(groups.items())
    ]


def name_of(mangled: str) -> str:
    """Return a kernel's name without namespaces, template arguments and parameters."""
    readable = subprocess.run(["c++filt", mangled], stdout=subprocess.PIPE, text=True, check=True).stdout
    match = re.search(r"(\w+)[<(]", readable.replace("(anonymous namespace)::", ""))
    return match[1] if match else mangled


def processor() -> str:
    """Return the processor's name."""
    match = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return match[1] if match else platform.processor()


def as_table(result: dict[str, Any]) -> str:
    """Return the Markdown of a result."""
    nvcc = result["nvcc"]
    met = "met" if nvcc["seconds"] <= nvcc["gate_seconds"] else "**missed (red)**"
    lines = [
        "# The CUDA kernels beside an H100's limits",
        "",
        _EXPLANATION.format(command=result["command"], gate=_PLANNED_GATE),
        "| case | launches | ideal MB | requested MB | memory MB | shared wavefronts | Mflop | floor µs | planned µs "
        "| bound by | ratio | gate |",
        "|---|" + "---:|" * 8 + "---|---:|---|",
    ]
    gates = {None: "", True: "met", False: "**red**"}
    for case in result["cases"]:
        megabytes = [f"{case[key] / 1e6:.1f}" for key in ("ideal_bytes", "requested_bytes", "memory_bytes")]
        work = [f"{case['wavefronts']:,}", f"{case['flops'] / 1e6:,.1f}"]
        times = [f"{case['floor_us']:.1f}", f"{case['planned_us']:.1f}", case["bound"], f"{case['ratio']:.2f}"]
        cells = [case["case"], str(case["launches"]), *megabytes, *work, *times, gates[case["within_gate"]]]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## What nvcc makes of them",
        "",
        f"All sources for sm_80, sm_90 and PTX with {nvcc['jobs']} jobs on {result['machine']}: {nvcc['seconds']} s, "
        f"{nvcc['cpu_seconds']} s of CPU time (gate {nvcc['gate_seconds']} s, {met}).",
        "The largest figure of all instantiations, the lowest occupancy; shared memory: static + the most of any case.",
        "",
        "| kernel | arch | instantiations | threads | registers | stack bytes | shared bytes | occupancy |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kernel in result["kernels"]:
        lines.append(
            f"| {kernel['kernel']} | {kernel['arch']} | {kernel['instantiations']} | {kernel['threads']} "
            f"| {kernel['registers']} | {kernel['stack_bytes']} "
            f"| {kernel['static_shared_bytes']} + {kernel['dynamic_shared_bytes']} | {kernel['occupancy']:.0%} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
