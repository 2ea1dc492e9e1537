"""The numbers of a finished default study beside its time gate.

    time make reproduce        # in a fresh clone
    python bench/study.py SECONDS [--summary results/report/summary.json] [--out bench]

SECONDS is the wall time of the whole command, set-up included. Writes study.json and study.md.
"""

import argparse
import json
from pathlib import Path
from typing import Any

GATE_SECONDS = 25 * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", type=float)
    parser.add_argument("--machine", required=True, help="processor and cores in words")
    parser.add_argument("--summary", type=Path, default=Path("results/report/summary.json"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    summary = json.loads(arguments.summary.read_text())
    result = {
        "command": "make reproduce",
        "machine": arguments.machine,
        "seconds": arguments.seconds,
        "gate_seconds": GATE_SECONDS,
        "within_gate": arguments.seconds <= GATE_SECONDS,
        "study": summary,
    }
    table = as_table(result)
    (arguments.out / "study.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / "study.md").write_text(table)
    print(table, end="")


def as_table(result: dict[str, Any]) -> str:
    """Return the Markdown of a result."""
    study = result["study"]
    names = list(study["runs"][0]["metrics"])
    lines = [
        "# The default study",
        "",
        f"`make reproduce` in a fresh clone on {result['machine']}:",
        f"{result['seconds'] / 60:.1f} minutes, set-up included.",
        f"Gate: {result['gate_seconds'] / 60:.0f} minutes, {'met' if result['within_gate'] else '**missed (red)**'}.",
        "",
        "| run | seeds | " + " | ".join(names) + " | training seconds a seed |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for run in study["runs"]:
        cells = [_cell(run["metrics"][name]) for name in names]
        seconds = study["seconds"]["training"][run["run"]]["seconds_total"]
        lines.append(f"| {run['run']} | {len(run['seeds'])} | {' | '.join(cells)} | {seconds:.0f} |")
    for anchor in study["anchors"]:
        cells = [_cell(anchor["metrics"][name]) for name in names]
        lines.append(f"| *{anchor['subject']}* | | {' | '.join(cells)} | |")
    lines += ["", "| claim | effect (95 % interval) | minimum effect | verdict |", "|---|---|---|---|"]
    for claim in study["claims"]:
        interval = "" if claim["ci95"] is None else f" ({claim['ci95'][0]:.1f} to {claim['ci95'][1]:.1f})"
        lines.append(
            f"| {claim['id']}: {claim['arm']} against {claim['against']} | {claim['effect']:.1f}{interval} | "
            f"{claim['minimum_effect']:g} | {claim['verdict']} |"
        )
    lines += ["", "| stage | seconds, all jobs |", "|---|---|"]
    lines += [f"| {stage} | {seconds:.0f} |" for stage, seconds in study["seconds"]["stages"].items()]
    return "\n".join(lines) + "\n"


def _cell(metric: dict[str, Any]) -> str:
    """Return mean and the values of the seeds."""
    values = metric.get("values") or {}
    each = values.values() if isinstance(values, dict) else values
    return f"{metric['mean']:.4g}" + (f" ({', '.join(f'{v:.3g}' for v in each)})" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
