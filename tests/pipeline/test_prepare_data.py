"""The stage prepare_data writes a data set, whatever the number of threads."""

import numpy as np
import pytest
from PIL import Image

from pipeline.prepare_data import main
from pygan.data.manifest import open_split
from pygan.errors import ConfigError


@pytest.fixture
def config(tmp_path):
    for i in range(60):
        path = tmp_path / "p" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return {"name": "mine", "source": {"kind": "folder", "path": str(tmp_path / "p")}, "resolution": 8, "codec": "png"}


def test_files_do_not_depend_on_the_threads(tmp_path, config):
    for threads in (1, 2):
        main({"config": config, "threads": threads}, inputs={}, out=tmp_path / str(threads))
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == ["contact_sheet.png", "manifest.json", "test.lmdb", "train.lmdb", "validation.lmdb"]
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert open_split(tmp_path / "1" / "manifest.json", "train").codec == "png"


def test_a_wrong_key_is_named(tmp_path, config):
    config["source"]["fitt"] = "crop"
    with pytest.raises(ConfigError, match=r"datasets\.mine\.source\.fitt"):
        main({"config": config}, inputs={}, out=tmp_path / "out")
