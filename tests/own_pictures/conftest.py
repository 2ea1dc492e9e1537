"""Pictures of noise, a tiny network in place of the recipe's, and few measurements."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tiny_runs import pixels

from pygan import assets, folder_plan, train_folder
from pygan.errors import MissingInput
from pygan.recipes import recipe


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Forty pictures of 20 x 17 pixels in two classes, and a file that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(40):
        (folder / f"class {i % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels(i, 20, 17)).save(folder / f"class {i % 2}" / f"{i}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Train a tiny network, and measure few pictures through a small window."""

    def tiny(*args, **kwargs):
        chosen = recipe(*args, **kwargs)
        sizes = {
            "dcgan": {"z_dim": 8, "g_channels": 4, "d_channels": 4},
            "stylegan2": {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8, "mapping_layers": 1},
        }
        base = chosen.run["base"] | sizes[chosen.run["base"]["kind"]]
        training = {**chosen.run["training"], "monitor_images": 8, "standing_batches": 1}
        return replace(chosen, run={**chosen.run, "base": base, "training": training})

    monkeypatch.setattr(folder_plan, "recipe", tiny)
    monkeypatch.setattr(train_folder, "JUDGE", {"kind": "mobilenet_v2", "resolution": 32})
    monkeypatch.setattr(train_folder, "METRICS", ({"kind": "fid"}, {"kind": "kid", "resamples": 100}))
    monkeypatch.setattr(train_folder, "N_SELECT", 8)
    monkeypatch.setattr(train_folder, "N_GEN", 12)


@pytest.fixture
def judged() -> None:
    try:
        assets.find("mobilenet_v2-b0353104.pth")
    except MissingInput as error:
        pytest.skip(str(error))
