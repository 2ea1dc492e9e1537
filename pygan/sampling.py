"""Generators on disk and pictures out of them."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pygan.checkpoint import check_finite, read_tensors, subset, write_tensors
from pygan.context import Context
from pygan.devices import choose
from pygan.draws import Draws
from pygan.errors import DataError, MissingInput
from pygan.memory import in_batches
from pygan.pruning.channels import slim
from pygan.pruning.sparse_file import compact, decompress
from pygan.spec import load_spec


def describe(
    base: dict[str, Any],
    ctx: Context,
    nimg: int,
    loss: dict[str, Any] | None = None,
    class_names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metadata from which `load_generator` rebuilds a snapshot.

    Args:
        loss: of a denoiser, whose pictures depend on it; None: of a GAN.
        class_names: of the data set, by label; recorded where the generator takes labels. Empty: they are not known.
    """
    fields = {"resolution": ctx.resolution, "channels": ctx.channels, "num_classes": ctx.num_classes}
    names = {"class_names": list(class_names)} if ctx.num_classes and class_names else {}
    return {"base": base, "nimg": nimg, "context": fields, **names} | ({} if loss is None else {"loss": loss})


def load_generator(path: Path) -> nn.Module:
    """Return the averaged generator of a snapshot, in eval mode; `G.num_classes` says whether it takes labels.

    Raises:
        DataError: the file is not a readable snapshot, or its weights are not finite.
        ConfigError: it was made with a base network this version does not have.
    """
    return _read_generator(path)[0]


def _read_generator(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the averaged generator of a snapshot and its metadata."""
    tensors, metadata = read_tensors(path)
    if "compressed" in metadata:
        tensors, metadata = decompress(tensors, metadata)
    if not {"base", "context", "nimg"} <= metadata.keys():
        raise DataError(f"{path}: got a safetensors file without a description, expected a training snapshot")
    check_finite({name: tensor for name, tensor in tensors.items() if name.startswith("G_ema.")}, str(path))
    G = untrained_generator(metadata)
    have, want = subset(tensors, "G_ema."), G.state_dict()
    wrong = [k for k in sorted(have.keys() | want.keys()) if k not in have or k not in want]
    wrong = wrong or [k for k in want if have[k].shape != want[k].shape]
    if wrong:
        raise DataError(f"{path}: the tensors are not those of its base network, the first difference is {wrong[0]}")
    G.load_state_dict(have)
    return G, metadata


def untrained_generator(metadata: dict[str, Any]) -> nn.Module:
    """Return the generator that the metadata of a snapshot describe, as drawn, in eval mode, without gradients."""
    fields = metadata["context"]
    base, ctx = load_spec("pygan.networks", metadata["base"], "base"), Context(**fields)
    if "loss" in metadata:
        G = load_spec("pygan.diffusion", metadata["loss"], "loss").generator(base, ctx)
    else:
        G = base.generator(ctx)
    slim(G, metadata.get("living_channels", {}))
    G.num_classes = fields["num_classes"]
    return G.eval().requires_grad_(False)


def export_sparse(path: Path, out: Path) -> tuple[int, int]:
    """Write the averaged generator of a snapshot compressed, without its pruned weights and dead channels.

    `load` reads the file like any snapshot; a generator without dead channels gives the same pictures bit by bit.

    Returns:
        Bytes of the file, and of the same generator uncompressed.

    Raises:
        ValueError: `out` is the snapshot.
        DataError: the file is not a readable snapshot.
        CannotWrite: the disk is full or the folder cannot be written.
    """
    check_out(out, path)
    G, metadata = _read_generator(path)
    dense = sum(tensor.numel() * tensor.element_size() for tensor in G.state_dict().values())
    write_tensors(out, *compact(G, metadata))
    return out.stat().st_size, dense


def to_float(img: Tensor) -> Tensor:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return img.float() / 127.5 - 1


def to_uint8(img: Tensor) -> Tensor:
    """float32 [-1, 1] to uint8 [0, 255], rounded and clamped."""
    return ((img + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def sample(G: nn.Module, n: int, **settings: Any) -> Tensor:
    """Return `n` pictures, uint8 `[n, C, H, W]` on the CPU; settings and errors are those of `samples`."""
    return torch.cat(list(samples(G, n, **settings)))


@torch.no_grad()
def samples(
    G: nn.Module,
    n: int,
    *,
    seed: int,
    stream: str = "sample",
    batch: int = 100,
    label: int | Tensor | None = None,
    truncation: float = 1.0,
    fresh_noise: bool = True,
) -> Iterator[Tensor]:
    """Yield `n` pictures, uint8 `[B, C, H, W]` on the CPU, a batch at a time.

    Picture i depends on (seed, stream, i) alone, up to rounding: the device and the number of pictures that are made
    at once may change the last bits of what the networks compute.

    Args:
        batch: pictures computed at a time, on the device of G; halved, and again, where memory is short.
        label: class of all pictures, or of each, int64 `[n]`; None: drawn uniformly where G takes labels.
        truncation: 1: none; below 1, less variety for more typical pictures (see `truncated`).
        fresh_noise: own noise for each picture in networks with noise inputs; False: their constant noise.

    Raises:
        TryAgain: memory is short for a single picture too.
    """
    device = device_of(G)

    def part(index: Tensor) -> Tensor:
        index = index.to(device)
        z = Draws(seed, f"{stream}/z", index).normal(G.z_dim)
        c = None
        if num_classes := getattr(G, "num_classes", 0):
            drawn = Draws(seed, f"{stream}/c", index).integers(num_classes)
            c = drawn if label is None else torch.as_tensor(label, device=index.device).expand(n)[index]
        draws = Draws(seed, f"{stream}/synthesis", index) if fresh_noise else None
        return to_uint8(G.body(truncated(G, z, c, truncation, draws), c, draws)).cpu()

    yield from in_batches(part, n, batch)


def device_of(G: nn.Module) -> torch.device | None:
    """Return where the parameters of a network are; None where it has none."""
    return next((p.device for p in G.parameters()), None)


def truncated(G: nn.Module, z: Tensor, c: Tensor | None, truncation: float, draws: Draws | None = None) -> Tensor:
    """Return what `G.body` reads, moved towards the most typical picture.

    StyleGAN2 has an average w to move towards (psi of Karras et al., CVPR 2019, arXiv 1812.04948, section 3.3); for the
    others the latent is scaled, which shortens it alike (after Brock et al., ICLR 2019, arXiv 1809.11096, section 3.1).
    """
    if truncation == 1:
        return G.stem(z, c, draws)
    if hasattr(G, "truncate"):
        return G.truncate(G.stem(z, c, draws), truncation)
    return G.stem(z * truncation, c, draws)


_NAMED = 10
"""Classes whose names an error message lists."""

_MOST_FRAMES = 2**62
"""Frames of a walk that int64 can number."""


class Model:
    """A trained generator, ready to use: what `pygan.load` returns.

    `G` may be moved to another device at any time: pictures are computed where its parameters are.

    Args:
        path: the snapshot it came from.
        device: where to compute: `cpu`, `cuda` or `cuda:N`; None: the first GPU where there is one, else the CPU.

    Raises:
        ConfigError: no such device, or PyTorch cannot use it.
    """

    def __init__(self, path: Path, device: str | torch.device | None = None) -> None:
        self.path = path
        chosen, _ = choose(None if device is None else str(device))
        self.G, self.metadata = _read_generator(path)
        self.G.to(chosen)
        self.resolution: int = self.metadata["context"]["resolution"]
        self.channels: int = self.metadata["context"]["channels"]
        self.num_classes: int = self.metadata["context"]["num_classes"]
        self.class_names: tuple[str, ...] = tuple(self.metadata.get("class_names", ()))
        """By label; empty: there are no classes, or the snapshot does not know their names."""

    @property
    def device(self) -> torch.device:
        """Where the parameters of `G` are, and so where pictures are computed."""
        return device_of(self.G) or torch.device("cpu")

    @property
    def denoiser(self) -> Any:
        """What has `denoise(z, sigma, labels=None)`.

        Raises:
            ValueError: it is no diffusion model.
        """
        return self._diffusion("denoiser").denoiser

    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        label: int | str | None = None,
        truncation: float = 1.0,
        steps: int | None = None,
    ) -> Tensor:
        """Return pictures, uint8 `[n, C, H, W]` on the CPU; arguments and errors are those of `samples`."""
        return torch.cat(list(self.samples(n, seed=seed, label=label, truncation=truncation, steps=steps)))

    def samples(
        self,
        n: int,
        *,
        seed: int = 0,
        label: int | str | None = None,
        truncation: float = 1.0,
        steps: int | None = None,
    ) -> Iterator[Tensor]:
        """Return an iterator over batches of pictures, uint8 `[B, C, H, W]` on the CPU, `n` pictures in all.

        Picture i depends on (seed, i) alone, up to rounding: the device and the number of pictures that are made at
        once may change the last bits of what the networks compute.

        Args:
            label: class of all pictures, by number or by name; None: drawn uniformly where there are classes.
            truncation: 1: none; below 1, less variety for more typical pictures.
            steps: noise levels of a diffusion model's sampler, at least 2; None: as it was configured.

        Raises:
            ValueError: no such class, a number out of range, or `steps` for a GAN.
        """
        chosen = self.class_of(label)
        _check_truncation(truncation)
        if n < 1:
            raise ValueError(f"n: got {n}, expected at least 1")
        G = self.G if steps is None else self._diffusion("steps").with_steps(steps)
        return samples(G, n, seed=seed, label=chosen, truncation=truncation, fresh_noise=False)

    def interpolate(
        self, seeds: Sequence[int], frames: int, *, label: int | str | None = None, truncation: float = 1.0
    ) -> Tensor:
        """Return a closed walk, uint8 `[F, C, H, W]` on the CPU; arguments and errors are those of `walk`."""
        return torch.cat(list(self.walk(seeds, frames, label=label, truncation=truncation)))

    def walk(
        self, seeds: Sequence[int], frames: int, *, label: int | str | None = None, truncation: float = 1.0
    ) -> Iterator[Tensor]:
        """Return an iterator over a closed walk through the pictures that `sample(1, seed=s)` gives.

        It yields batches of frames, uint8 `[B, C, H, W]` on the CPU, `len(seeds) * frames` frames in all. Latents
        turn on the sphere between two pictures (Shoemake, SIGGRAPH 1985), because their length is nearly constant.

        Args:
            seeds: at least two.
            frames: pictures per step from one seed to the next.
            label: class of all frames, by number or by name; None: the first class where there are classes.
            truncation: 1: none; below 1, less variety for more typical pictures.

        Raises:
            ValueError: fewer than two seeds, no frames, more than can be counted, or no such class.
        """
        chosen = self.class_of(label)
        _check_truncation(truncation)
        if len(seeds) < 2 or frames < 1:
            raise ValueError(f"got {len(seeds)} seeds and {frames} frames, expected at least 2 and 1")
        corners = [Draws(seed, "sample/z", torch.arange(1)).normal(self.G.z_dim)[0] for seed in seeds]
        total = len(seeds) * frames
        if total > _MOST_FRAMES:
            raise ValueError(f"got {total} frames in all, expected at most {_MOST_FRAMES}")

        @torch.no_grad()
        def part(index: Tensor) -> Tensor:
            latents = _walked(corners, frames, index).to(self.device)
            labels = torch.full([len(index)], chosen or 0, device=self.device) if self.num_classes else None
            return to_uint8(self.G.body(truncated(self.G, latents, labels, truncation), labels)).cpu()

        return in_batches(part, total, 50)

    def class_of(self, label: int | str | None) -> int | None:
        """Return the number of a class: a name that the snapshot knows stands for its class, else a number for itself.

        Raises:
            ValueError: there is no such class.
        """
        if label is None:
            return None
        if label in self.class_names:
            return self.class_names.index(label)
        number = int(label) if isinstance(label, int) or label.isdecimal() else -1
        if not 0 <= number < self.num_classes:
            have = f"classes 0 to {self.num_classes - 1}" if self.num_classes else "no classes"
            named = ", ".join(self.class_names[:_NAMED]) + (", ..." if len(self.class_names) > _NAMED else "")
            raise ValueError(f"label: got {label}, but {self.path} has {have}{named and f' ({named})'}")
        return number

    def _diffusion(self, what: str) -> nn.Module:
        if not hasattr(self.G, "denoiser"):
            raise ValueError(f"{what}: {self.path} is no diffusion model")
        return self.G


def _check_truncation(truncation: float) -> None:
    if not 0 <= truncation <= 2:
        raise ValueError(f"truncation: got {truncation}, expected 0 to 2")


def load(path: str | Path, device: str | torch.device | None = None) -> Model:
    """Return the model of a snapshot, or of a training folder: the snapshot it selected, else its newest one.

    Args:
        device: where to compute: `cpu`, `cuda` or `cuda:N`; None: the first GPU where there is one, else the CPU.

    Raises:
        MissingInput: there is no such file, or no snapshot in the folder.
        DataError: the file is not a readable snapshot, or its weights are not finite.
        ConfigError: no such device, or the snapshot has a base network that this version does not have.
    """
    return Model(snapshot_path(Path(path)), device)


def snapshot_path(path: Path) -> Path:
    """Return the snapshot that a path stands for: itself, or of a training folder the selected or newest one.

    Raises:
        MissingInput: there is no such file, or no snapshot in the folder.
        DataError: the folder does not say which snapshot was selected.
    """
    if path.is_dir():
        path = _snapshot_of(path)
    if not path.is_file():
        raise MissingInput(f"{path}: no such file")
    return path


def _snapshot_of(folder: Path) -> Path:
    """Return the snapshot that stands for a training folder."""
    selected = folder / "selected.json"
    if selected.is_file():
        try:
            return folder / "snapshots" / json.loads(selected.read_text())["snapshot"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{selected}: does not name a snapshot ({error})") from error
    for place in (folder / "snapshots", folder):
        if found := sorted(place.glob("*.safetensors")):
            return found[-1]
    if trainings := sorted(inner.parent.name for inner in folder.glob("*/snapshots")):
        raise MissingInput(f"{folder}: holds several trainings, name one of them ({', '.join(trainings)})")
    raise MissingInput(f"{folder}: no snapshot (*.safetensors) in this folder or its `snapshots`")


def check_out(out: Path, snapshot: Path) -> None:
    """Raise ValueError where writing `out` would replace the snapshot that is read."""
    if os.path.exists(out) and out.samefile(snapshot):
        raise ValueError(f"{out}: is the snapshot that is read, expected the name of another file")


def slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation from `a` to `b` `[F]` at the fractions `t` `[T]`: `[T, F]`."""
    angle = torch.arccos((a @ b / (a.norm() * b.norm())).clamp(-1, 1))
    if angle < 1e-4:
        return torch.lerp(a, b, t[:, None])
    t = t[:, None]
    return (((1 - t) * angle).sin() * a + (t * angle).sin() * b) / angle.sin()


def _walked(corners: Sequence[Tensor], frames: int, index: Tensor) -> Tensor:
    """Return the latents `[B, F]` of the frames `index` `[B]`, ascending, of a closed walk along the corners."""
    parts = []
    for corner in range(int(index[0]) // frames, int(index[-1]) // frames + 1):
        fractions = index[index // frames == corner] % frames / frames
        parts.append(slerp(corners[corner], corners[(corner + 1) % len(corners)], fractions))
    return torch.cat(parts)
