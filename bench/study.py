"""The numbers of a finished study, the default one beside its time gate.

    time make reproduce        # in a fresh clone
    python bench/study.py --machine WORDS --seconds SECONDS

    snakemake --cores all reproduce --configfile config/bases.yaml
    python bench/study.py --machine WORDS --study bases

SECONDS is the wall time of `make reproduce` after its set-up. Writes STUDY.json, the whole summary, and STUDY.md.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

GATE_SECONDS = 60 * 60
SHOWN = re.compile(r"(fd|kid)_(?!intra|head|middle|tail)|precision$|recall$|coverage$|diversity_tail|memorized_moved")
"""Metrics in the table of runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", required=True, help="processor and cores in words")
    parser.add_argument("--seconds", type=float, help="wall time of `make reproduce`")
    parser.add_argument("--study", default="study", help="file in config/ without its suffix; `study`: the default one")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    default = arguments.study == "study"
    if default and arguments.seconds is None:
        parser.error("--seconds: the default study has a time gate")
    results = Path("results") if default else Path("results") / arguments.study
    command = f"snakemake --cores all reproduce --configfile config/{arguments.study}.yaml"
    result = {
        "command": "make reproduce" if default else command,
        "machine": arguments.machine,
        "study": json.loads((results / "report" / "summary.json").read_text()),
    }
    if default:
        result |= {"seconds": arguments.seconds, "gate_seconds": GATE_SECONDS}
        result["within_gate"] = arguments.seconds <= GATE_SECONDS
    table = as_table(result)
    (arguments.out / f"{arguments.study}.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / f"{arguments.study}.md").write_text(table)
    print(table, end="")


def as_table(result: dict[str, Any]) -> str:
    """Return the Markdown of a result."""
    study = result["study"]
    names = [name for name in dict.fromkeys(n for run in study["runs"] for n in run["metrics"]) if SHOWN.match(name)]
    lines = [f"# {study['name']}", "", f"`{result['command']}` on {result['machine']}."]
    if "seconds" in result:
        verdict = "met" if result["within_gate"] else "**missed (red)**"
        lines += [
            f"In a fresh clone: {result['seconds'] / 60:.1f} minutes after set-up.",
            f"Gate: {result['gate_seconds'] / 60:.0f} minutes, {verdict}.",
        ]
    lines += [
        "",
        "| run | seeds | " + " | ".join(names) + " | training seconds a seed |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for run in study["runs"]:
        cells = [_cell(run["metrics"].get(name)) for name in names]
        seconds = study["seconds"]["training"][run["run"]]["seconds_total"]
        lines.append(f"| {run['run']} | {len(run['seeds'])} | {' | '.join(cells)} | {seconds:.0f} |")
    for anchor in study["anchors"]:
        cells = [_cell(anchor["metrics"].get(name)) for name in names]
        lines.append(f"| *{anchor['subject']}* | | {' | '.join(cells)} | |")
    if study["claims"]:
        header = "| claim | effect (95 % interval) | over the control | over a run of equal time | minimum | verdict |"
        lines += ["", header, "|---|---|---|---|---|---|"]
    for claim in study["claims"]:
        lines.append(
            f"| {claim['id']}: {claim['arm']} against {claim['against']}, {claim['metric']} | {_effect(claim)} | "
            f"{_effect(claim.get('control'))} | {_effect(claim.get('equal_time'))} | {claim['minimum_effect']:g} | "
            f"{claim['verdict']} |"
        )
    lines += ["", "| stage | seconds, all jobs |", "|---|---|"]
    lines += [f"| {stage} | {seconds:.0f} |" for stage, seconds in study["seconds"]["stages"].items()]
    return "\n".join(lines) + "\n"


def _effect(comparison: dict[str, Any] | None) -> str:
    """Return a paired difference, positive where the arm is better, with its interval."""
    if comparison is None or comparison["effect"] is None:
        return ""
    ci95 = comparison["ci95"]
    return f"{comparison['effect']:.3g}" + ("" if ci95 is None else f" ({ci95[0]:.3g} to {ci95[1]:.3g})")


def _cell(metric: dict[str, Any] | None) -> str:
    """Return mean and the values of the seeds; nothing for a metric that was not measured."""
    if metric is None:
        return ""
    values = metric.get("values") or {}
    each = values.values() if isinstance(values, dict) else values
    return f"{metric['mean']:.4g}" + (f" ({', '.join(f'{v:.3g}' for v in each)})" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
