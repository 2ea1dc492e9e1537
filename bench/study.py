"""The numbers of a study, the default one and the quick one beside their time gates.

    time make reproduce        # in a fresh clone
    python bench/study.py --machine WORDS --seconds SECONDS
    time make quick
    python bench/study.py --machine WORDS --seconds SECONDS --study quick

    snakemake --cores all reproduce --configfile config/bases.yaml
    python bench/study.py --machine WORDS --study bases

SECONDS is the wall time after the set-up. Of a study that is not finished, `pygan report` writes
what there is, and `--summary FILE` with a `--note` takes the numbers from there. Writes a JSON with the whole summary
and a table of the same name: `study` for config/config.yaml, `study_full` for config/study.yaml, else that of the file;
beside the default study's, pictures of some of its runs.
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

DEFAULT = "config"
TIMED = {DEFAULT: ("make reproduce", 60 * 60), "quick": ("make quick", 12 * 60)}
"""Study -> what runs it, and its gate in seconds."""
NAMES = {DEFAULT: "study", "study": "study_full"}
PICTURED = ("base", "diffaug", "vision_aided")
COLUMNS = 12
SHOWN = re.compile(r"(fd|kid)_(?!intra|head|middle|tail)|precision$|recall$|coverage$|diversity_tail|memorized_moved")
"""Metrics in the table of runs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", required=True, help="processor and cores in words")
    parser.add_argument("--study", default=DEFAULT, help="file in config/ without its suffix")
    parser.add_argument("--seconds", type=float, help="wall time after the set-up, for a study with a gate")
    parser.add_argument("--command", help="what was run, if it differs")
    parser.add_argument("--summary", type=Path, help="summary.json; default: that of the finished report")
    parser.add_argument("--note", action="append", default=[], help="what a reader must know; may be repeated")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    default = arguments.study == DEFAULT
    command, gate = TIMED.get(
        arguments.study, (f"snakemake --cores all reproduce --configfile config/{arguments.study}.yaml", None)
    )
    if gate and arguments.seconds is None and not arguments.note:
        parser.error("--seconds: the study has a time gate; a --note says why it was not measured")
    if not gate and arguments.seconds is not None:
        parser.error(f"--seconds: {arguments.study} has no time gate")
    results = Path("results") if default else Path("results") / arguments.study
    summary = arguments.summary or results / "report" / "summary.json"
    result = {
        "command": arguments.command or command,
        "machine": arguments.machine,
        "notes": arguments.note,
        "study": json.loads(summary.read_text()),
    }
    if arguments.seconds is not None:
        result |= {"seconds": arguments.seconds, "gate_seconds": gate, "within_gate": arguments.seconds <= gate}
    table = as_table(result)
    name = NAMES.get(arguments.study, arguments.study)
    (arguments.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.out / f"{name}.md").write_text(table)
    if default and arguments.seconds is not None:
        save_pictures(summary.parents[1], arguments.out / f"{name}.png")
    print(table, end="")


def save_pictures(results: Path, path: Path) -> None:
    """Write every eighth training tile of seed 0 and, a row each, the first pictures of runs, none picked."""
    import torch

    import pygan
    from pygan.data.store import Store
    from pygan.data.subset import parse_subset, select
    from pygan.sheets import save_grid

    base = json.loads((results / "config.json").read_text())["runs"][PICTURED[0]]
    store = Store(results / "data" / base["dataset"] / "train.lmdb")
    tiles = select(store.labels, parse_subset(base["subset"]), 0)
    rows = [torch.from_numpy(store.read(tiles[:: len(tiles) // COLUMNS][:COLUMNS]))]
    for run in PICTURED:
        selected = json.loads((results / "select" / run / "seed0" / "selected.json").read_text())["snapshot"]
        rows.append(pygan.load(results / "train" / run / "seed0" / "snapshots" / selected).sample(COLUMNS))
    save_grid(path, torch.cat(rows), columns=COLUMNS)


def as_table(result: dict[str, Any]) -> str:
    """Return the Markdown of a result."""
    study = result["study"]
    names = [name for name in dict.fromkeys(n for run in study["runs"] for n in run["metrics"]) if SHOWN.match(name)]
    lines = [f"# {study['name']}", "", f"`{result['command']}` on {result['machine']}."]
    if "seconds" in result:
        verdict = "met" if result["within_gate"] else "**missed (red)**"
        lines += [
            f"{result['seconds'] / 60:.1f} minutes after set-up.",
            f"Gate: {result['gate_seconds'] / 60:.0f} minutes, {verdict}.",
        ]
    if notes := result.get("notes"):
        lines += ["", *(f"- {note}" for note in notes)]
    lines += [
        "",
        "| run | seeds | " + " | ".join(names) + " | training seconds a seed, the search for a ticket included |",
        "|---|---|" + "---|" * (len(names) + 1),
    ]
    for run in study["runs"]:
        cells = [_cell(run["metrics"].get(name)) for name in names]
        training = study["seconds"]["training"][run["run"]]
        seconds = training["seconds_total"] + training["seconds_ticket_search"]
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
