"""Files made to harm: pickles that run something, safetensors whose header lies. Refused, with exit code 65."""

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import pygan
from pygan.checkpoint import Checkpoints, _fingerprint, read_tensors, write_tensors
from pygan.cli import app
from pygan.errors import DataError
from pygan.training.init_from import read_snapshot

TENSORS = {"a": torch.arange(4.0), "b": torch.arange(6).view(2, 3)}


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.canary}'",)


def pickled(canary: Path) -> bytes:
    return pickle.dumps({"G_ema": Evil(canary)})


def saved_by_torch(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"G_ema": Evil(canary)}, file)
    return file.getvalue()


@pytest.mark.parametrize("make", [pickled, saved_by_torch])
def test_a_pickle_is_refused_unexecuted(make, tmp_path):
    canary, path = tmp_path / "canary", tmp_path / "network.safetensors"
    path.write_bytes(make(canary))
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read_tensors(path)  # the snapshot that a run continues
    with pytest.raises(DataError, match="not a readable safetensors file"):
        pygan.load(path)
    arguments = {"generate": ["-o", str(tmp_path / "out"), "-n", "1"], "inspect": [], "import-nvlabs": ["-o", "x"]}
    for verb, more in arguments.items():
        result = CliRunner().invoke(app, [verb, str(path), *more])
        assert result.exit_code == 65, (verb, result.output)
        assert result.output.startswith(f"error: {path}: ")
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read_snapshot(path)  # what `--init-from` and `init_from` read
    assert not canary.exists()
    pickle.loads(pickled(canary))  # it would have worked
    assert canary.exists()


def test_a_pickle_in_a_checkpoint_with_the_right_digest_is_refused_unexecuted(tmp_path):
    canary = tmp_path / "canary"
    checkpoints = Checkpoints(tmp_path / "state")
    checkpoints.save("000000000001", TENSORS, {"nimg": 1})
    folder = tmp_path / "state" / "000000000001"
    (folder / "tensors.safetensors").write_bytes(pickled(canary))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["tensors.safetensors"] = _fingerprint(folder / "tensors.safetensors")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="not a readable safetensors file"):
        checkpoints.load()
    assert not canary.exists()


def safetensors_file(header: object, data: bytes = bytes(16), length: int | None = None) -> bytes:
    """The format by hand: length of the header as uint64, the header as JSON, the data."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict:
    return {"dtype": dtype, "shape": shape or [4], "data_offsets": [begin, end]}


def as_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("__main__.py", "raise SystemExit")
    return file.getvalue()


GOOD = safetensors_file({"a": entry(0, 16)})
LIES = {
    "header length 2^40": safetensors_file({"a": entry(0, 16)}, length=2**40),
    "header length 2^64 - 1": safetensors_file({"a": entry(0, 16)}, length=2**64 - 1),
    "negative offsets": safetensors_file({"a": entry(-16, 0)}),
    "end before begin": safetensors_file({"a": entry(16, 0)}),
    "beyond the file": safetensors_file({"a": entry(0, 2**40, [2**38])}),
    "overlap": safetensors_file({"a": entry(0, 16), "b": entry(8, 24)}, bytes(24)),
    "twice the same bytes": safetensors_file({"a": entry(0, 16), "b": entry(0, 16)}),
    "hole": safetensors_file({"a": entry(0, 16), "b": entry(32, 48)}, bytes(48)),
    "shape of another size": safetensors_file({"a": entry(0, 16, [5])}),
    "shape that overflows": safetensors_file({"a": entry(0, 16, [2**62, 4])}),
    "unknown type": safetensors_file({"a": entry(0, 16, dtype="PICKLE")}),
    "zip behind it": GOOD + as_zip(),
    "zip before it": as_zip() + GOOD,
    "header that is a list": safetensors_file([1]),
    "header that is no text": struct.pack("<Q", 4) + b"\xff\xfe\xfd\xfc",
    "metadata that is no JSON": safetensors_file({"__metadata__": {"pygan": "{"}, "a": entry(0, 16)}),
    "metadata that is a list": safetensors_file({"__metadata__": {"pygan": "[1]"}, "a": entry(0, 16)}),
    "empty": b"",
}


def test_the_format_by_hand_is_right(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    assert torch.equal(read_tensors(path)[0]["a"], torch.zeros(4))


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_bad_data(lie, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(LIES[lie])
    with pytest.raises(DataError, match=r"x\.safetensors: ") as caught:
        read_tensors(path)
    assert caught.value.exit_code == 65


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_file_is_read_or_refused(data, tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"nimg": 1})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
    try:
        read_tensors(path)
    except DataError as error:
        assert str(error).startswith(f"{path}: ")
