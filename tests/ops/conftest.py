"""The two implementations of every operator, as a fixture."""

import pytest
from torch import Tensor

from pygan.ops import extension


@pytest.fixture
def native() -> None:
    """Skip a test of the compiled operators where they were not built or are switched off."""
    if extension.MODULE is None:
        pytest.skip(extension.backend_reason())


@pytest.fixture(params=["reference", "native"])
def implementation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test once with each implementation behind the public functions."""
    if request.param == "native":
        request.getfixturevalue("native")

    def use_native(x: Tensor) -> bool:
        return request.param == "native"

    monkeypatch.setattr(extension, "use_native", use_native)
    return request.param
