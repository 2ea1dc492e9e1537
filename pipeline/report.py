"""Stage `report`: everything the other stages found, as one page and one summary."""

from pathlib import Path
from typing import Any

from pipeline.cli import run_stage


def main(spec: dict[str, Any], *, inputs: dict[str, list[Path]], out: Path) -> None:
    """Write the report of a study.

    Args:
        spec: `config` is the study file; `name`, `seeds` and `runs` are required. `order` names the runs as the study
            lists them, for keys of a job are sorted; without it they come as they are.
        inputs: `run_json`, `stats`, `samples`, `metrics`, `anchors`, `probe`, `prune`, `selected`, `theory`,
            `diffusion` with its `panels` beside it, `contact_sheet`, `manifest` and `benchmarks`, each a
            list that may be empty.
        out: gets `index.html` and `summary.json`.

    Raises:
        MissingInput: a file is not there.
        DataError: a file is malformed, or two protocols of a metric would share a table.
    """
    from pygan.errors import DataError, MissingInput
    from pygan.optional import require_packages

    require_packages("the report", "jinja2", "matplotlib")
    from pygan.report.so_far import write_report

    config = spec["config"]
    runs = {run: config["runs"][run] for run in config.get("order", config["runs"])}
    try:
        write_report(config | {"runs": runs}, inputs, out)
    except FileNotFoundError as error:
        raise MissingInput(str(error)) from error
    except ValueError as error:
        raise DataError(str(error)) from error


if __name__ == "__main__":
    run_stage(main)
