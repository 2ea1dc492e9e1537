"""Stage: the pictures of a source become one store per split, a manifest and a contact sheet."""

import os
from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Prepare the data set `spec["config"]`: name, source, resolution and, optionally, channels and codec.

    Decoding uses as many processes as `spec["threads"]` says (default: the processors at hand); the files do not
    depend on their number.
    """
    from pygan.data.prepare import prepare
    from pygan.spec import load_spec

    config = dict(spec["config"])
    name = config.pop("name")
    source = load_spec("pygan.data.sources", config.pop("source"), f"datasets.{name}.source")
    workers = spec.get("threads") or os.cpu_count() or 1
    prepare(name, source, out, workers=workers, **config)


if __name__ == "__main__":
    run_stage(main)
