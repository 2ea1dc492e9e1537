"""Checkpoints and files: whole or not at all, and damage is noticed."""

import json
import os
import shutil

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pygan import checkpoint
from pygan.checkpoint import Checkpoints, read_tensors, write_json, write_tensors
from pygan.errors import CannotWrite, ConfigError, DataError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3)}


def test_round_trip_and_the_last_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "state")
    assert checkpoints.load() is None
    for nimg in (10, 20, 30):
        checkpoints.save(f"{nimg:012d}", {k: v + nimg for k, v in TENSORS.items()}, {"nimg": nimg})
    assert sorted(p.name for p in (tmp_path / "state").iterdir()) == ["000000000020", "000000000030"]
    tensors, scalars = Checkpoints(tmp_path / "state").load()
    assert scalars == {"nimg": 30}
    assert all(torch.equal(tensors[k], v + 30) for k, v in TENSORS.items())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_flipped_byte_of_any_file_is_noticed(tmp_path_factory, data):
    state = tmp_path_factory.mktemp("state")
    checkpoints = Checkpoints(state)
    for nimg in (1, 2):
        checkpoints.save(f"{nimg:012d}", TENSORS, {"nimg": nimg})
    files = sorted((state / "000000000002").iterdir())
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        _, scalars = checkpoints.load()
    except ConfigError as error:
        assert "checkpoint format" in str(error)  # a digit of the format number became a larger one
    else:
        # the manifest has bytes whose change leaves its meaning (white space); everything else falls back
        assert scalars["nimg"] == 1 or path.name == "manifest.json"


@pytest.mark.parametrize("damage", ["truncate", "empty", "no manifest", "extra file"])
def test_damaged_checkpoints_are_skipped_and_none_left_is_an_error(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("000000000001", TENSORS, {"nimg": 1})
    folder = tmp_path / "000000000001"
    file = folder / "tensors.safetensors"
    if damage == "truncate":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "more").touch()
    with pytest.raises(DataError, match="got 1 checkpoints, none is intact"):
        checkpoints.load()


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    Checkpoints(tmp_path).save("000000000001", TENSORS, {})
    monkeypatch.setattr(checkpoint, "FORMAT", 1)
    with pytest.raises(ConfigError, match="got checkpoint format 2, which needs a newer pygan"):
        Checkpoints(tmp_path).load()


def test_a_full_disk_keeps_the_previous_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("000000000001", TENSORS, {"nimg": 1})

    def full(*args, **kwargs):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(checkpoint.safetensors.torch, "save_file", full)
    with pytest.raises(CannotWrite, match="No space left on device"):
        checkpoints.save("000000000002", TENSORS, {"nimg": 2})
    assert checkpoints.load()[1] == {"nimg": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["000000000001"]


def test_left_overs_of_an_interrupted_write_are_removed(tmp_path):
    left = tmp_path / "000000000005.tmp-1"
    left.mkdir()
    (left / "tensors.safetensors").write_bytes(b"half")
    assert Checkpoints(tmp_path).load() is None
    assert not left.exists()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text()) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_in_the_way_is_named(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(CannotWrite, match="Permission denied"):
        write_tensors(tmp_path / "x.safetensors", TENSORS)


def test_tensors_that_cannot_be_read(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, TENSORS, {"k": "v"})
    tensors, metadata = read_tensors(path)
    assert metadata == {"k": "v"}
    assert torch.equal(tensors["a"], TENSORS["a"])
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read_tensors(path)
    shutil.rmtree(tmp_path)
    with pytest.raises(DataError, match="not a readable safetensors file"):
        read_tensors(path)


def test_a_manifest_of_another_shape_is_damage_too(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for nimg in (1, 2):
        checkpoints.save(f"{nimg:012d}", TENSORS, {"nimg": nimg})
    (tmp_path / "000000000002" / "manifest.json").write_text("[]")
    assert checkpoints.load()[1] == {"nimg": 1}


def test_equal_content_gives_equal_bytes(tmp_path):
    metadata = {name: {"n": i} for i, name in enumerate("abcdefgh")}
    paths = [tmp_path / f"{i}.safetensors" for i in range(10)]
    for path in paths:
        write_tensors(path, TENSORS, metadata)
    assert len({path.read_bytes() for path in paths}) == 1
    assert read_tensors(paths[0])[1] == metadata
