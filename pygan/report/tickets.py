"""Lottery tickets: how much of which network is pruned, how far masks agree, and what distance goes with it."""

from collections.abc import Mapping, Sequence
from statistics import median

from pygan.report.evidence import mean_interval
from pygan.report.figures import RUN_COLORS, Line, quantities
from pygan.report.plots import Plot
from pygan.report.study import Owned, Study
from pygan.report.tables import Cell, Table
from pygan.report.text import NONE, mean_of, metric_title, number, optional

SHARES = {
    "G_conv": "convolutions of G",
    "G": "all of G",
    "D_conv": "convolutions of D",
    "D": "all of D",
    "all": "all parameters",
}


def last_rounds(study: Study) -> dict[str, list[Owned]]:
    """Return run -> what its last pruning round recorded, one entry a seed."""
    last: dict[tuple[str, int], Owned] = {}
    for pruning in sorted(study.prunings, key=lambda p: p.record.get("round", 1)):
        last[pruning.run, pruning.seed] = pruning
    found: dict[str, list[Owned]] = {}
    for run in study.runs:
        if entries := [last[run, seed] for seed in study.seeds if (run, seed) in last]:
            found[run] = entries
    return found


def share_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return the pruned share of each part of the two networks per ticket, and the overlap with the mask it is like."""
    rounds = last_rounds(study)
    parts = [part for part in SHARES if any(part in e.record.get("shares", {}) for es in rounds.values() for e in es)]
    rows = []
    for run, entries in rounds.items():
        ticket = (study.runs[run] or {}).get("ticket") or {}
        overlaps = [overlap for e in entries if (overlap := e.record.get("overlap_with_like"))]
        rows.append(
            (
                Cell(text=run, color=colors[run], each=str(ticket.get("kind", ""))),
                *(_share_cell(entries, part) for part in parts),
                _overlap_cell(overlaps),
                Cell(text=f"{len(entries)} of {len(study.seeds)}"),
            )
        )
    headers = ("ticket", *(f"pruned of {SHARES[part]}" for part in parts), "overlap with the mask it is like", "seeds")
    return Table(title="Shares", headers=headers, rows=tuple(rows))


def _overlap_cell(found: Sequence[Mapping[str, float]]) -> Cell:
    """Intersection over union of the living weights, and what two independent masks would have."""
    if not found:
        return Cell(text=NONE)
    own, chance = (
        mean_of([entry[key] for entry in found]) for key in ("intersection_over_union", "expected_by_chance")
    )
    return Cell(text=_percent(own), each=f"by chance {_percent(chance)}")


def _share_cell(entries: list[Owned], part: str) -> Cell:
    found = [e.record["shares"][part] for e in entries if part in e.record.get("shares", {})]
    if not found:
        return Cell(text=NONE)
    pruned = [entry["parameters"] - entry["living"] for entry in found]
    parameters = dict.fromkeys(f"{entry['parameters']:,}" for entry in found)
    return Cell(
        text=_percent(mean_of([entry["sparsity"] for entry in found])),
        each=f"{mean_of(pruned):,.0f} of {' / '.join(parameters)}",
    )


def _percent(share: float) -> str:
    return f"{number(100 * share, 1)} %"


def share_sentence(study: Study) -> str:
    """Say what share of the networks the pruned part is; empty where no round recorded it."""
    for run, entries in last_rounds(study).items():
        shares = entries[0].record.get("shares", {})
        named = next((part for part in ("G_conv", "D_conv") if shares.get(part, {}).get("sparsity")), None)
        if named is None or not {"G", "all"} <= shares.keys():
            continue
        whole = named.removesuffix("_conv")
        return (
            f"{run} prunes {_percent(shares[named]['sparsity'])} of the {SHARES[named]}, which is "
            f"{_percent(shares[whole]['sparsity'])} of the {shares[whole]['parameters']:,} parameters of {whole} and "
            f"{_percent(shares['all']['sparsity'])} of the {shares['all']['parameters']:,} of both networks."
        )
    return ""


def sparsity_plots(study: Study) -> list[Plot]:
    """Draw the first metric against the pruned share, one line per kind of mask, from the dense run on."""
    metric = next(iter(study.metric_names()), None)
    if metric is None:
        return []
    lines: dict[str, dict[float, str]] = {}
    for run, entries in last_rounds(study).items():
        ticket = (study.runs[run] or {}).get("ticket") or {}
        shares = lines.setdefault(str(ticket.get("kind", "ticket")), {})
        shares[median(float(e.record["sparsity"]) for e in entries)] = run
        if dense := ticket.get("found_in"):
            shares.setdefault(0.0, dense)
    drawn = []
    for (kind, runs), color in zip(lines.items(), RUN_COLORS[1:], strict=False):
        values = {100 * share: list(study.values(run, metric).values()) for share, run in sorted(runs.items())}
        values = {share: each for share, each in values.items() if each}
        if not values:
            continue
        drawn.append(Line(label=kind, points=[(x, mean_interval(y)[0]) for x, y in values.items()], color=color))
        drawn.append(
            Line(label="", points=[(x, y) for x, each in values.items() for y in each], color=color, style="o")
        )
    if not drawn:
        return []
    label, title = metric_title(metric), "Distance against pruned share"
    return [quantities(title, "pruned share, % (0: dense)", label, drawn, log_x=False)]


def ticket_table(study: Study, colors: Mapping[str, str]) -> Table:
    """Return what every pruning round recorded: its numbers, one column each."""
    own = {"run", "seed", "round"}
    prunings = sorted(study.prunings, key=lambda p: (p.run, p.seed, p.record.get("round", 1)))
    keys = dict.fromkeys(
        key
        for pruning in prunings
        for key, value in pruning.record.items()
        if key not in own and isinstance(value, int | float) and not isinstance(value, bool)
    )
    rows = [
        (
            Cell(text=pruning.run, color=colors.get(pruning.run, "")),
            Cell(text=str(pruning.seed)),
            Cell(text=str(pruning.record.get("round", 1))),
            *(Cell(text=_plain(pruning.record.get(key))) for key in keys),
        )
        for pruning in prunings
    ]
    headers = ("run", "seed", "round", *(key.replace("_", " ") for key in keys))
    return Table(title="Masks", headers=headers, rows=tuple(rows))


def ticket_tensors(study: Study) -> Table:
    """Return the pruned share of every tensor after the last round of every ticket, one column per run and seed."""
    last = {
        (entry.run, entry.seed): entry.record["tensors"]
        for entries in last_rounds(study).values()
        for entry in entries
        if entry.record.get("tensors")
    }
    names = dict.fromkeys(name for tensors in last.values() for name in tensors)
    rows = [
        (Cell(text=name), *(Cell(text=optional(tensors.get(name), 3)) for tensors in last.values())) for name in names
    ]
    return Table(title="Tensors", headers=("tensor", *(f"{run}, seed {seed}" for run, seed in last)), rows=tuple(rows))


def _plain(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:,}" if isinstance(value, int) else number(value)
