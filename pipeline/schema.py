"""Writes workflow/schemas/config.schema.yaml from pygan.config: `python -m pipeline.schema`.

Snakemake validates the study file with it at parse time, without importing torch, and fills in the defaults.
"""

from pathlib import Path
from typing import Any

import yaml

from pipeline.provenance import ROOT

TARGET = ROOT / "workflow" / "schemas" / "config.schema.yaml"
_HEADER = "# Generated from pygan/config.py by `python -m pipeline.schema`; do not edit.\n"


def schema() -> dict[str, Any]:
    """Return the JSON schema of a study file, with `$schema` first (Snakemake's validator needs it)."""
    from pygan.config import ADAPTER

    generated = _rewritten(ADAPTER.json_schema())
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def _rewritten(node: Any) -> Any:
    """Make Snakemake's filling in of defaults safe.

    It fills in the defaults of every alternative of a `oneOf`, so a choice by `kind` becomes if/then; and it fails on
    a null that meets an object schema, so null is tried first.
    """
    if isinstance(node, list):
        return [_rewritten(item) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        node = {**node, "anyOf": sorted(node["anyOf"], key=lambda choice: choice.get("type") != "null")}
    if "discriminator" not in node:
        return {key: _rewritten(value) for key, value in node.items() if not _is_title(key, value)}
    kinds = node["discriminator"]["mapping"]
    choices = [
        {"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": reference}}
        for kind, reference in kinds.items()
    ]
    others = {key: value for key, value in node.items() if key not in ("oneOf", "discriminator", "title")}
    return {
        **others,
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(kinds)}},
        "allOf": choices,
    }


def _is_title(key: str, value: Any) -> bool:
    return key == "title" and isinstance(value, str)


def text() -> str:
    """Return the content of the schema file."""
    return _HEADER + yaml.safe_dump(schema(), sort_keys=False, width=120, allow_unicode=True)


def main(target: Path = TARGET) -> None:
    """Write the schema file."""
    target.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main()
