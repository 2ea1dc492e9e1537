"""Stage `report`: everything the other stages found, as one page and one summary."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Write the report of a study.

    Args:
        spec: `config` is the study file; `name`, `seeds` and `runs` are required.
        inputs: `run_json`, `stats`, `samples`, `metrics`, `anchors`, `probe`, `prune`, `selected`, `theory`,
            `diffusion` with its `panels` beside it, `contact_sheet`, `manifest` and `benchmarks`, each a
            list that may be empty.
        out: gets `index.html` and `summary.json`.

    Raises:
        MissingInput: a file is not there.
        DataError: a file is malformed, or two protocols of a metric would share a table.
    """
    from pygan.errors import DataError, MissingInput
    from pygan.report.so_far import write_report

    try:
        write_report(spec["config"], inputs, out)
    except FileNotFoundError as error:
        raise MissingInput(str(error)) from error
    except ValueError as error:
        raise DataError(str(error)) from error


if __name__ == "__main__":
    run_stage(main)
