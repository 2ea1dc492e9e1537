"""The numbers of a study, the default one beside its time gate.

    time make reproduce        # in a fresh clone
    python bench/study.py --machine WORDS --seconds SECONDS

    snakemake --cores all reproduce --configfile config/bases.yaml
    python bench/study.py --machine WORDS --study bases

SECONDS is the wall time of `make reproduce` after its set-up. Of a study that is not finished, `pygan report` writes
what there is, and `--summary FILE` with a `--note` takes the numbers from there. Writes a JSON with the whole summary
and a table of the same name: `study` for config/config.yaml, `study_full` for config/study.yaml, else that of the file.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

GATE_SECONDS = 60 * 60
DEFAULT = "config"
NAMES = {DEFAULT: "study", "study": "study_full"}
SHOWN = re.compile(r"(fd|kid)_(?!intra|head|middle|tail)|precision$|recall$|coverage$|diversity_tail|memorized_moved")
"""Metrics in the table of runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", required=True, help="processor and cores in words")
    parser.add_argument("--study", default=DEFAULT, help="file in config/ without its suffix")
    parser.add_argument("--seconds", type=float, help="wall time of `make reproduce`, for the default study's gate")
    parser.add_argument("--command", help="what was run, if it differs")
    parser.add_argument("--summary", type=Path, help="summary.json; default: that of the finished report")
    parser.add_argument("--note", action="append", default=[], help="what a reader must know; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    default = arguments.study == DEFAULT
    if default and arguments.seconds is None and not arguments.note:
        parser.error("--seconds: the default study has a time gate; a --note says why it was not measured")
    results = Path("results") if default else Path("results") / arguments.study
    summary = arguments.summary or results / "report" / "summary.json"
    command = f"snakemake --cores all reproduce --configfile config/{arguments.study}.yaml"
    result = {
        "command": arguments.command or ("make reproduce" if default else command),
        "machine": arguments.machine,
        "notes": arguments.note,
        "study": json.loads(summary.read_text()),
    }
    if arguments.seconds is not None:
        result |= {"seconds": arguments.seconds, "gate_seconds": GATE_SECONDS}
        result["within_gate"] = arguments.seconds <= GATE_SECONDS
    table = as_table(result)
    name = NAMES.get(arguments.study, arguments.study)
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / f"{name}.md").write_text(table)
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
    if notes := result.get("notes"):
        lines += ["", *(f"- {note}" for note in notes)]
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
