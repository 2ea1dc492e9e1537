"""Mistakes on Snakemake's command line: refused before any job is planned."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("snakemake")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["s=1"], "must start with a valid identifier"),
        (["thread=2"], "'thread' was unexpected"),
        (["threads=many"], "'many' is not of type 'integer'"),
    ],
)
def test_a_wrong_config_value_is_refused_before_any_job(values: list[str], words: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--configfile", "config/smoke.yaml", "--config", *values]
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr
    assert "Job stats" not in result.stdout + result.stderr
