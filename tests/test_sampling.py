"""Pictures from generators: value ranges, independence of the batch, and grids."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from stand_in_device import stand_in_gpu
from tiny_snapshot import DCGAN, STYLEGAN2, snapshot
from torch import nn

import pygan
from pygan.checkpoint import write_tensors
from pygan.context import Context
from pygan.draws import Draws
from pygan.errors import ConfigError, DataError, MissingInput, TryAgain
from pygan.metrics.pca_gaussian import pca_gaussian
from pygan.sampling import describe, load_generator, sample, samples, slerp, to_float, to_uint8
from pygan.sheets import SHEET_PIXELS, save_grid, save_sheet, sheet_scale


def test_ranges_round_trip_every_value():
    img = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(img)), img)
    assert to_uint8(torch.tensor([-2.0, 2.0])).tolist() == [0, 255]


def test_a_grid_shows_the_pictures_in_reading_order(tmp_path):
    img = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2) * 100
    save_grid(tmp_path / "grid.png", img, columns=2, scale=3)
    pixels = np.asarray(Image.open(tmp_path / "grid.png"))
    assert pixels.shape == (2 * 2 * 3, 2 * 2 * 3, 3)
    assert [pixels[0, 0, 0], pixels[0, -1, 0], pixels[-1, 0, 0], pixels[-1, -1, 0]] == [0, 100, 200, 255]


def test_a_sheet_is_filled_batch_by_batch(tmp_path):
    img = Draws(0, "img", torch.arange(7)).integers(256, 3, 4, 4).to(torch.uint8)
    save_grid(tmp_path / "whole.png", img, columns=3)
    save_sheet(tmp_path / "parts.png", img.split(2), rows=3, columns=3, scale=2)
    assert (tmp_path / "parts.png").read_bytes() == (tmp_path / "whole.png").read_bytes()


def test_a_sheet_is_no_larger_than_pillow_opens():
    assert SHEET_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    assert (sheet_scale(64, 8, 8), sheet_scale(512, 8, 8), sheet_scale(1024, 8, 8)) == (2, 2, 1)
    with pytest.raises(ValueError, match=r"got 100 x 100 pictures of 256 pixels, .* a sheet of 655360000 pixels"):
        sheet_scale(256, 100, 100)


def test_a_file_that_is_no_snapshot_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"x\.safetensors: not a readable safetensors file"):
        load_generator(path)


def test_the_pca_gaussian_has_the_moments_of_the_pictures():
    """Pictures on a line in pixel space (mean 100, direction d, scale 20) give samples on that line."""
    steps = torch.linspace(-1, 1, 41)
    direction = torch.tensor([1.0, -1.0, 0.5, 0.0]).view(1, 2, 2)
    img = (100 + 20 * steps.view(-1, 1, 1, 1) * direction).round().to(torch.uint8)
    drawn = pca_gaussian(img, 4000, seed=0).double()
    x = img.double().flatten(1)
    assert (drawn.flatten(1).mean(0) - x.mean(0)).abs().max() < 1
    torch.testing.assert_close(drawn.flatten(1).T.cov(), x.T.cov(), rtol=0.1, atol=2.0)
    assert drawn.shape == (4000, 1, 2, 2)


@pytest.mark.parametrize("base", [DCGAN, STYLEGAN2], ids=["dcgan", "stylegan2"])
def test_a_loaded_model_samples_the_same_pictures_whatever_the_number(tmp_path, base):
    snapshot(tmp_path / "a.safetensors", base)
    model = pygan.load(tmp_path / "a.safetensors")
    five, two = model.sample(5, seed=3), model.sample(2, seed=3)
    assert five.shape == (5, 3, 16, 16) and five.dtype == torch.uint8
    assert torch.equal(five[:2], two)
    assert not torch.equal(two, model.sample(2, seed=4))
    assert torch.equal(five, model.sample(5, seed=3, truncation=1.0))


def test_a_training_folder_loads_its_newest_snapshot(tmp_path):
    for nimg in (0, 64, 128):
        snapshot(tmp_path / "snapshots" / f"{nimg:09d}.safetensors", DCGAN, nimg=nimg)
    assert pygan.load(tmp_path).metadata["nimg"] == 128
    assert pygan.load(str(tmp_path / "snapshots")).path.name == "000000128.safetensors"
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInput, match=r"no snapshot \(\*\.safetensors\) in this folder"):
        pygan.load(tmp_path.joinpath("empty"))
    with pytest.raises(MissingInput, match="nothing: no such file"):
        pygan.load(tmp_path / "nothing")


def test_a_folder_says_which_snapshot_stands_for_it(tmp_path):
    for seed in (0, 1):
        for nimg in (0, 64, 128):
            snapshot(tmp_path / f"seed{seed}" / "snapshots" / f"{nimg:09d}.safetensors", DCGAN, nimg=nimg)
    with pytest.raises(MissingInput, match=r"holds several trainings, name one of them \(seed0, seed1\)"):
        pygan.load(tmp_path)
    selected = tmp_path / "seed1" / "selected.json"
    selected.write_text(json.dumps({"snapshot": "000000064.safetensors"}))
    assert pygan.load(tmp_path / "seed1").metadata["nimg"] == 64
    selected.write_text("{}")
    with pytest.raises(DataError, match=r"selected\.json: does not name a snapshot"):
        pygan.load(tmp_path / "seed1")


def test_weights_that_cannot_be_used_are_named(tmp_path):
    G = snapshot(tmp_path / "a.safetensors", DCGAN)
    tensors = {f"G_ema.{k}": v for k, v in G.state_dict().items()}
    metadata = describe(DCGAN, Context(resolution=16), 64)
    for path, change, words in (
        (
            "nan",
            {"G_ema.linear.weight": G.linear.weight.detach() * math.nan},
            "refused, 1 tensors are not finite: G_ema.linear.weight",
        ),
        ("inf", {"G_ema.to_img.bias": torch.full([3], math.inf)}, "not finite: G_ema.to_img.bias"),
        ("more", {"G_ema.other": torch.zeros(1)}, "the first difference is other"),
        ("shape", {"G_ema.to_img.bias": torch.zeros(4)}, "the first difference is to_img.bias"),
    ):
        write_tensors(tmp_path / path, tensors | change, metadata)
        with pytest.raises(DataError, match=f"{path}: .*{words}"):
            pygan.load(tmp_path / path)
    write_tensors(tmp_path / "bare", tensors)
    with pytest.raises(DataError, match="bare: got a safetensors file without a description"):
        pygan.load(tmp_path / "bare")
    data = bytearray((tmp_path / "a.safetensors").read_bytes())
    data[data.index(b"pygan")] ^= 255
    (tmp_path / "torn").write_bytes(data)
    with pytest.raises(DataError, match="torn: not a readable safetensors file"):
        pygan.load(tmp_path / "torn")


class Narrow(nn.Module):
    """A generator that a device with memory for `most` pictures could run; it notes the batches it was given."""

    z_dim = 2

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.batches = most, []

    def stem(self, z, c, draws):
        return z

    def body(self, h, c, draws):
        self.batches.append(len(h))
        if len(h) > self.most:
            raise torch.OutOfMemoryError("out of memory")
        return h[:, :, None, None].clamp(-1, 1)


def test_short_memory_halves_the_batch():
    G = Narrow(most=3)
    img = sample(G, 10, seed=0, batch=8)
    assert G.batches == [8, 4, 2, 2, 2, 2, 2]
    assert torch.equal(img, sample(Narrow(most=100), 10, seed=0))
    with pytest.raises(TryAgain, match="out of memory with one picture at a time"):
        sample(Narrow(most=0), 4, seed=0)


def test_pictures_come_in_batches_that_are_computed_when_they_are_asked_for():
    G = Narrow(most=100)
    batches = samples(G, 10, seed=0, batch=4)
    assert G.batches == []
    first = next(batches)
    assert G.batches == [4]
    assert torch.equal(torch.cat([first, *batches]), sample(Narrow(most=100), 10, seed=0))
    assert G.batches == [4, 4, 2]


@pytest.mark.parametrize(
    ("base", "num_classes"), [(DCGAN | {"conditional": True}, 3), (STYLEGAN2, 0)], ids=["dcgan", "stylegan2"]
)
def test_a_model_computes_where_its_parameters_are(tmp_path, monkeypatch, base, num_classes):
    """The stand-in computes with the bits of the CPU and refuses to mix devices."""
    snapshot(tmp_path / "a.safetensors", base, num_classes=num_classes)

    def pictures(model):
        return model.sample(5, seed=3), model.sample(2, truncation=0.5), model.interpolate([1, 2], 3)

    model = pygan.load(tmp_path / "a.safetensors", device="cpu")
    expected = pictures(model)
    with stand_in_gpu(monkeypatch):
        assert pygan.load(tmp_path / "a.safetensors").device == torch.device("cuda", 0)
        for device in ("cuda", "cpu", "cuda"):
            model.G.to(device)
            assert model.device.type == device
            assert all(torch.equal(found, img) for found, img in zip(pictures(model), expected, strict=True))


def test_a_device_that_is_not_there_is_refused(tmp_path, monkeypatch):
    snapshot(tmp_path / "a.safetensors", DCGAN)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device: got cuda:1, but PyTorch can use 0 GPUs"):
        pygan.load(tmp_path / "a.safetensors", device="cuda:1")
    with pytest.raises(ConfigError, match="device: got 'gpu', expected cpu, cuda or cuda:N"):
        pygan.load(tmp_path / "a.safetensors", device="gpu")
    assert pygan.load(tmp_path / "a.safetensors").device.type == "cpu"


def test_a_class_has_a_name(tmp_path):
    names = ["10", "cat", "dog"]
    snapshot(tmp_path / "a.safetensors", STYLEGAN2, num_classes=3, class_names=names)
    model = pygan.load(tmp_path / "a.safetensors")
    assert model.class_names == tuple(names)
    assert torch.equal(model.sample(2, label="dog"), model.sample(2, label=2))
    assert not torch.equal(model.sample(2, label="dog"), model.sample(2, label="cat"))
    assert [model.class_of(label) for label in ("10", "1", 1, None)] == [0, 1, 1, None]  # a name goes before a number
    assert torch.equal(model.interpolate([1, 2], 2, label="dog"), model.interpolate([1, 2], 2, label=2))
    for label in ("bird", "3", "-1", -1):
        with pytest.raises(ValueError, match=rf"label: got {label}, but .* has classes 0 to 2 \(10, cat, dog\)"):
            model.class_of(label)
    snapshot(tmp_path / "old.safetensors", STYLEGAN2, num_classes=3)  # as earlier versions wrote it
    assert pygan.load(tmp_path / "old.safetensors").class_names == ()
    snapshot(tmp_path / "none.safetensors", DCGAN, class_names=["all"])  # an unconditional run has no use for names
    assert "class_names" not in pygan.load(tmp_path / "none.safetensors").metadata


def test_labels_and_truncation(tmp_path):
    G = snapshot(tmp_path / "a.safetensors", STYLEGAN2, num_classes=3)
    model = pygan.load(tmp_path / "a.safetensors")
    z = Draws(0, "sample/z", torch.arange(4)).normal(8)
    c = torch.full([4], 2)
    assert torch.equal(model.sample(4, label=2), to_uint8(G(z, c)))
    typical = model.sample(4, label=2, truncation=0.0)
    assert all(torch.equal(typical[0], other) for other in typical)  # the average w alone
    with pytest.raises(ValueError, match=r"label: got 3, but .* has classes 0 to 2"):
        model.sample(1, label=3)
    with pytest.raises(ValueError, match="truncation: got -1"):
        model.sample(1, truncation=-1)
    with pytest.raises(ValueError, match="n: got 0"):
        model.sample(0)


def test_a_gan_has_no_denoiser_and_no_steps(tmp_path):
    snapshot(tmp_path / "a.safetensors", DCGAN)
    model = pygan.load(tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"steps: .*a\.safetensors is no diffusion model"):
        model.sample(1, steps=5)
    with pytest.raises(ValueError, match=r"denoiser: .*a\.safetensors is no diffusion model"):
        _ = model.denoiser


def test_a_walk_passes_through_the_pictures_of_its_seeds(tmp_path):
    snapshot(tmp_path / "a.safetensors", DCGAN)
    model = pygan.load(tmp_path / "a.safetensors")
    walk = model.interpolate([5, 9], 4)
    assert walk.shape == (8, 3, 16, 16)
    for frame, seed in ((0, 5), (4, 9)):
        assert (walk[frame].int() - model.sample(1, seed=seed)[0].int()).abs().max() <= 1  # rounding
    with pytest.raises(ValueError, match="got 1 seeds and 4 frames"):
        model.interpolate([1], 4)


def test_a_walk_has_the_bits_of_its_latents_made_at_once(tmp_path):
    """Batches of 50 frames lie across the corners, of which three are 37 frames apart."""
    G = snapshot(tmp_path / "a.safetensors", DCGAN)
    seeds, frames = [5, 9, 2], 37
    corners = [Draws(seed, "sample/z", torch.arange(1)).normal(8)[0] for seed in seeds]
    fractions = torch.arange(frames) / frames
    z = torch.cat([slerp(corners[i], corners[(i + 1) % 3], fractions) for i in range(3)])
    with torch.no_grad():
        expected = torch.cat([to_uint8(G(part, None)) for part in z.split(50)])
    assert torch.equal(pygan.load(tmp_path / "a.safetensors", "cpu").interpolate(seeds, frames), expected)


def test_a_walk_of_any_length_begins_at_once(tmp_path):
    """The latents of the longest walk would take 2 EiB; its first fractions are 0, as those of frame / frames."""
    snapshot(tmp_path / "a.safetensors", DCGAN)
    model = pygan.load(tmp_path / "a.safetensors", "cpu")
    first = next(model.walk([5, 9], 10**13))
    assert first.shape == (50, 3, 16, 16)
    assert (first.int() - model.sample(1, seed=5).int()).abs().max() <= 1  # rounding
    with pytest.raises(ValueError, match=r"got 20000000000000000000 frames in all, expected at most"):
        model.walk([5, 9], 10**19)


def test_slerp_turns_at_constant_speed():
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    t = torch.tensor([0.0, 1 / 3, 1.0])
    angles = t * math.pi / 2
    torch.testing.assert_close(slerp(a, b, t), 2 * torch.stack([angles.cos(), angles.sin()], 1))
    torch.testing.assert_close(slerp(a, a, t), a.expand(3, 2))
