"""Puts the speed-ups of bench/ops.json into the README, between the markers `bench:ops`.

python bench/readme.py
"""

import json
import re
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARKERS = re.compile(r"(<!-- bench:ops -->\n).*?(<!-- /bench:ops -->)", re.DOTALL)
MODES = ("forward", "forward + backward")


def main() -> None:
    readme = HERE.parent / "README.md"
    result = json.loads((HERE / "ops.json").read_text())
    readme.write_text(with_table(readme.read_text(), as_table(result)))


def with_table(text: str, table: str) -> str:
    """Return the text with `table` between its markers."""
    return MARKERS.sub(lambda markers: f"{markers[1]}{table}{markers[2]}", text)


def as_table(result: dict[str, Any]) -> str:
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
