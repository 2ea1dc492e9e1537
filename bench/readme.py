"""Puts measured numbers into the README between markers: the verdicts of study.json and the speed-ups of ops.json.

python bench/readme.py
"""

import json
import math
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MODES = ("forward", "forward + backward")


def main() -> None:
    readme = HERE.parent / "README.md"
    text = readme.read_text()
    for name, table in tables().items():
        text = with_table(text, name, table)
    readme.write_text(text)


def tables() -> dict[str, str]:
    """Return the tables by the names of their markers."""
    study, operators = (json.loads((HERE / f"{name}.json").read_text()) for name in ("study", "ops"))
    return {"study": of_study(study), "ops": of_operators(operators)}


def with_table(text: str, name: str, table: str) -> str:
    """Return the text with `table` between the markers `bench:name`."""
    markers = re.compile(rf"(<!-- bench:{name} -->\n).*?(<!-- /bench:{name} -->)", re.DOTALL)
    return markers.sub(lambda found: f"{found[1]}{table}{found[2]}", text)


def of_study(result: dict[str, Any]) -> str:
    """What each claim of the default study came to."""
    lines = [
        f"`{result['command']}` on {result['machine']}: {result['seconds'] / 60:.1f} minutes after set-up.",
        "",
        "| claim | improvement (95 % interval) | over its control | verdict | could be shown | by the second network |",
        "|---|---:|---:|---|---:|---:|",
    ]
    for claim in result["study"]["claims"]:
        decimals = max(0, 1 - math.floor(math.log10(claim["minimum_effect"])))
        improvements = [improvement(effect, decimals) for effect in (claim, claim["control"])]
        shown = claim["minimum_detectable_effect"]
        second = [improvement(effect, decimals) for effect in claim["other_judges"].values()]
        cells = [*improvements, claim["verdict"], "" if not shown else f"{shown:.{decimals}f}", "; ".join(second)]
        lines.append(f"| {claim['statement']} | {' | '.join(cells)} |")
    lines += [
        "",
        "Could be shown: the smallest effect that so few seeds find four times out of five. The second network has a "
        "scale of its own and decides nothing.",
    ]
    return "\n".join(lines) + "\n"


def improvement(effect: dict[str, Any] | None, decimals: int) -> str:
    if effect is None or effect["effect"] is None:
        return ""
    interval = " to ".join(f"{bound:.{decimals}f}" for bound in effect["ci95"] or ())
    return f"{effect['effect']:.{decimals}f}" + (f" ({interval})" if interval else "")


def of_operators(result: dict[str, Any]) -> str:
    """How many times faster than the public formula (the first peer) and than torch.compile, for headline cases."""
    cases: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for row in result["rows"]:
        if row["headline"] and row["allocator"] == "equal allocator":
            cases.setdefault((row["op"], row["case"]), {})[row["mode"]] = row["peers"]
    lines = [
        f"{result['machine']['processor']}, threads {result['threads']}, torch {result['versions']['torch']}:",
        "",
        "| operator | input | forward | forward + backward | over `torch.compile`, forward | forward + backward |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (op, case), peers in cases.items():
        over_formula = [ratio(peers[mode][0]) for mode in MODES]
        over_compiled = [ratio(*(p for p in peers[mode] if p["name"] == "torch.compile")) for mode in MODES]
        lines.append(f"| `{op}` | {case} | {' | '.join(over_formula + over_compiled)} |")
    return "\n".join(lines) + "\n"


def ratio(peer: dict[str, Any] | None = None) -> str:
    return f"{peer['ratio']:.1f}x" if peer else ""


if __name__ == "__main__":
    main()
