"""The made-up study as fixtures."""

from pathlib import Path
from typing import Any

import pytest
from made_up_study import study_config, write_study


@pytest.fixture
def config() -> dict[str, Any]:
    """The configuration of the made-up study."""
    return study_config()


@pytest.fixture
def study_files(tmp_path: Path) -> dict[str, list[Path]]:
    """The files of the made-up study, by input name."""
    return write_study(tmp_path)
