"""The empirical optimum against a brute force, and what sampling with it returns."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pygan.data.pictures import ArrayPicture
from pygan.data.store import Store, write_store
from pygan.diffusion.denoiser import predict
from pygan.diffusion.empirical_optimum import EmpiricalOptimum
from pygan.diffusion.gaussian import GaussianDenoiser
from pygan.diffusion.sampler import ancestral, ddim, heun, latents
from pygan.diffusion.schedule import Level, alpha_bar_of, vp_sigmas
from pygan.draws import Draws

SIGMAS = (0.002, 0.02, 0.2, 1.0, 3.0, 8.0, 20.0, 80.0)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def pictures(n: int = 1000, side: int = 16) -> Tensor:
    """Smooth pictures; the last 80 are the first one, 100 before them copies of others, one differs by one level."""
    coarse = torch.nn.functional.interpolate(random(n, 3, 4, 4), size=side, mode="bilinear")
    images = (128 + 50 * coarse + 10 * random(n, 3, side, side, seed=1)).clamp(0, 255).to(torch.uint8)
    images[-180:-80] = images[:100]
    images[-80:] = images[0]
    images[n // 2] = images[0]
    images[n // 2, 0, 0, 0] ^= 1
    return images


def brute_force(images: Tensor, z: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """D*, weights and log density from differences, in float64."""
    x = (images.double() / 127.5 - 1 if images.dtype == torch.uint8 else images.double()).flatten(1)
    logits = torch.stack([-(x - row).square().sum(1) / (2 * sigma**2) for row in z.double().flatten(1)])
    weights = logits.softmax(1)
    constant = math.log(len(x)) + x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))
    return (weights @ x).view(z.shape), weights, logits.logsumexp(1) - constant


def relative_error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)).max().item()


def queries(images: Tensor, sigma: float) -> Tensor:
    """Noisy pictures: copies among them, one without noise, one far from all."""
    x0 = images[[0, 500, 1, 300, 700, -1]].double() / 127.5 - 1
    z = x0 + sigma * random(*x0.shape, seed=2)
    z[-1] = x0[-1]
    return torch.cat([z, 5 * random(1, *x0.shape[1:], seed=3)])


@pytest.mark.parametrize("exact_values", [0, 1 << 22], ids=["streamed", "resident"])
@pytest.mark.parametrize("flips", [False, True])
def test_it_agrees_with_a_brute_force(exact_values: int, flips: bool) -> None:
    images = pictures()
    optimum = EmpiricalOptimum(images, flips=flips, exact_values=exact_values, chunk_values=150 * 768)
    both = torch.cat([images, images.flip(-1)]) if flips else images
    assert len(optimum) == len(both)
    for sigma in SIGMAS:
        z = queries(images, sigma)
        mean, weights, log_density = brute_force(both, z, sigma)
        found = optimum.posterior(z, sigma)
        assert relative_error(found.mean, mean) <= 1e-5
        torch.testing.assert_close(found.max_weight, weights.amax(1), rtol=1e-3, atol=0)
        entropy = torch.special.entr(weights).sum(1)
        torch.testing.assert_close(found.effective_count, entropy.exp(), rtol=1e-3, atol=0)
        torch.testing.assert_close(found.log_density, log_density, rtol=1e-6, atol=1e-4)


def test_more_near_duplicates_than_are_looked_at_twice() -> None:
    """200 pictures that differ in single levels: their float32 logits are noise, so float64 has to settle it."""
    images = pictures(400)
    images[200:] = images[0]
    for row in range(200, 400):
        images[row, row % 3, row % 16, 3] ^= 1
    z = images[:1].double() / 127.5 - 1 + 0.004 * random(1, 3, 16, 16)
    optimum = EmpiricalOptimum(images, exact_values=0)
    for sigma in (0.002, 0.004, 0.02):
        mean, weights, _ = brute_force(images, z, sigma)
        found = optimum.posterior(z, sigma)
        torch.testing.assert_close(found.mean, mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.max_weight, weights.amax(1), rtol=1e-6, atol=0)


def test_points_and_a_level_for_each() -> None:
    """The toys: float `[n, D]`, and z in float32."""
    points, z = random(300, 2).float(), random(5, 2, seed=1).float()
    sigma = torch.tensor([0.002, 0.05, 0.3, 1.0, 80.0])
    for exact_values in (0, 1 << 22):
        found = EmpiricalOptimum(points, exact_values=exact_values).denoise(z, sigma)
        assert found.dtype == torch.float32
        expected = torch.cat([brute_force(points, z[i : i + 1], sigma[i].double().item())[0] for i in range(5)])
        torch.testing.assert_close(found, expected.float(), rtol=1e-5, atol=1e-6)


def test_one_picture_is_the_answer_to_everything() -> None:
    images = pictures(300)[:1]
    for exact_values in (0, 1 << 22):
        found = EmpiricalOptimum(images, exact_values=exact_values).posterior(random(3, 3, 16, 16), 1.0)
        torch.testing.assert_close(found.mean, (images.double() / 127.5 - 1).expand(3, -1, -1, -1))
        assert found.effective_count.tolist() == found.max_weight.tolist() == [1, 1, 1]


def test_classes_have_optima_of_their_own() -> None:
    images, labels = pictures(300), torch.arange(300) % 3
    optimum = EmpiricalOptimum(images, labels, exact_values=0)
    z, wanted = random(6, 3, 16, 16), torch.tensor([0, 2, 2, 1, 0, 1])
    found = optimum.denoise(z, 8.0, wanted)
    for query, label in enumerate(wanted.tolist()):
        expected, _, _ = brute_force(images[labels == label], z[query : query + 1], 8.0)
        assert relative_error(found[query : query + 1], expected) <= 1e-5
    mirrored = EmpiricalOptimum(images, labels, flips=True, exact_values=0).denoise(z, 8.0, wanted)
    both = torch.cat([images[labels == 2], images[labels == 2].flip(-1)])
    assert relative_error(mirrored[1:3], brute_force(both, z[1:3], 8.0)[0]) <= 1e-5
    assert torch.equal(optimum.posterior(z, 1e6, wanted).effective_count.round(), torch.full((6,), 100.0).double())


def test_the_score_is_the_gradient_of_the_log_density() -> None:
    points, z, sigma = random(40, 2), random(3, 2, seed=1), 0.4
    optimum, step = EmpiricalOptimum(points), 1e-5
    score = predict(optimum, "score", z, Level.ve(sigma))
    for axis in range(2):
        shift = step * torch.eye(2, dtype=torch.float64)[axis]
        rise = optimum.posterior(z + shift, sigma).log_density - optimum.posterior(z - shift, sigma).log_density
        torch.testing.assert_close(score[:, axis], rise / (2 * step), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_both_forms_agree(sigma: float) -> None:
    """DDPM's form, by its own formula: w = softmax(-||x_t - sqrt(abar) x_i||^2 / (2 (1 - abar)))."""
    points, alpha_bar = random(100, 4), alpha_bar_of(sigma)
    x_t = random(7, 4, seed=1) * (1 - alpha_bar).sqrt() + alpha_bar.sqrt() * points[:7]
    logits = -(x_t[:, None] - alpha_bar.sqrt() * points).square().sum(2) / (2 * (1 - alpha_bar))
    x0 = logits.softmax(1) @ points
    eps = (x_t - alpha_bar.sqrt() * x0) / (1 - alpha_bar).sqrt()
    optimum, z = EmpiricalOptimum(points), x_t / alpha_bar.sqrt()
    torch.testing.assert_close(predict(optimum, "eps", x_t, Level.vp(alpha_bar)), eps, rtol=0, atol=1e-6)
    torch.testing.assert_close(predict(optimum, "eps", z, Level.ve(sigma)), eps, rtol=0, atol=1e-6)


def test_the_optimal_loss_is_that_of_two_points() -> None:
    """Data are -1 and 1: L* = E (1 - tanh(z / sigma^2))^2 over z = 1 + sigma eps, by symmetry; summed over a grid."""
    optimum = EmpiricalOptimum(torch.tensor([[-1.0], [1.0]]))
    sigmas = [0.3, 1.0, 10.0]
    found = optimum.optimal_loss(sigmas, samples=20_000)
    eps = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    density = (-eps.square() / 2).exp() / math.sqrt(2 * math.pi)
    for sigma, loss in zip(sigmas, found.tolist(), strict=True):
        squares = (1 - torch.tanh((1 + sigma * eps) / sigma**2)).square()
        expected = torch.trapezoid(squares * density, eps).item()
        spread = math.sqrt(max(torch.trapezoid(squares.square() * density, eps).item() - expected**2, 0))
        assert loss == pytest.approx(expected, abs=5 * spread / math.sqrt(20_000))


@pytest.mark.parametrize("flips", [False, True])
def test_the_optimal_loss_is_below_the_best_affine_denoiser_s(flips: bool) -> None:
    images = pictures(300)[:, :, ::4, ::4]
    both = torch.cat([images, images.flip(-1)]) if flips else images
    x0 = (both.double() / 127.5 - 1).repeat(4, 1, 1, 1)
    eps = random(*x0.shape, seed=5)
    optimum, gaussian = EmpiricalOptimum(images, flips=flips), GaussianDenoiser(both)
    for sigma in (0.2, 1.0, 3.0):
        z = x0 + sigma * eps
        squares = (x0 - optimum.denoise(z, sigma)).square().flatten(1).mean(1)
        loss = optimum.optimal_loss([sigma], samples=400, seed=3).item()
        assert loss == pytest.approx(
            squares.mean().item(), abs=5 * squares.std().item() * (1 / 400 + 1 / len(x0)) ** 0.5
        )
        assert squares.mean() < (x0 - gaussian.denoise(z, sigma)).square().mean()
    assert optimum.optimal_loss([1.0], seed=3).equal(optimum.optimal_loss([1.0], seed=3))


def test_memory_is_bounded_by_the_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is read in pieces of the chunk's size, by every pass once, and gives what memory gives."""
    images = pictures(300).numpy()
    path = tmp_path / "train.lmdb"
    write_store(
        path, [(ArrayPicture(str(i), image), i % 2) for i, image in enumerate(images)], resolution=16, codec="raw"
    )
    store, read = Store(path), []
    original = Store.read

    def counted(self: Store, indices: np.ndarray) -> np.ndarray:
        read.append(len(indices))
        return original(self, indices)

    monkeypatch.setattr(Store, "read", counted)
    chunk = 64
    optimum = EmpiricalOptimum(store, chunk_values=chunk * 768, exact_values=0)
    assert max(read) == chunk
    z = random(5, 3, 16, 16)
    read.clear()
    found = optimum.denoise(z, 3.0)
    assert max(read) == chunk
    assert sum(read) == 300 + 5 * chunk  # once through the set, and the 64 nearest of every query again
    expected = EmpiricalOptimum(torch.from_numpy(images), chunk_values=chunk * 768, exact_values=0).denoise(z, 3.0)
    assert torch.equal(found, expected)
    by_class = EmpiricalOptimum(store, store.labels, exact_values=0).denoise(z, 3.0, torch.ones(5, dtype=torch.int64))
    assert relative_error(by_class, brute_force(torch.from_numpy(images[1::2]), z, 3.0)[0]) <= 1e-5


def test_a_query_does_not_depend_on_its_batch() -> None:
    """No query is a batch, too."""
    images = pictures()
    optimum = EmpiricalOptimum(images, exact_values=0)
    assert optimum.denoise(torch.zeros(0, 3, 16, 16), 1.0).shape == (0, 3, 16, 16)
    z = queries(images, 1.0)
    together = optimum.denoise(z, 1.0)
    for query in range(len(z)):
        assert relative_error(optimum.denoise(z[query : query + 1], 1.0), together[query : query + 1]) <= 1e-6
    many = z.repeat(50, 1, 1, 1)  # more than are computed at a time
    assert relative_error(optimum.denoise(many, 1.0), together.repeat(50, 1, 1, 1)) <= 1e-6


def distances(samples: Tensor, images: Tensor) -> Tensor:
    """Root mean square differences per value to the two nearest pictures, `[N, 2]`."""
    x = (images.double() / 127.5 - 1).flatten(1)
    rms = torch.cdist(samples.flatten(1), x, compute_mode="donot_use_mm_for_euclid_dist") / math.sqrt(x.shape[1])
    return rms.topk(2, largest=False).values


@pytest.mark.parametrize("name", ["ddim 20", "ddim 50", "eta 1", "heun", "ancestral", "churn"])
def test_samples_are_training_pictures(tiles: dict[str, Tensor], name: str) -> None:
    """By deterministic and stochastic samplers alike: NN distance below 1e-3, NN ratio below 1/3 in all samples."""
    images = tiles["train"][:500]
    optimum, index = EmpiricalOptimum(images), torch.arange(12)
    z, draws = latents(0, index, 3, 32, 32), Draws(0, "test", index)
    samples = {
        "ddim 20": lambda: ddim(optimum, z, steps=20),
        "ddim 50": lambda: ddim(optimum, z, steps=50),
        "eta 1": lambda: ddim(optimum, z, steps=20, eta=1.0, draws=draws),
        "heun": lambda: heun(optimum, z),
        "ancestral": lambda: ancestral(optimum, z, steps=40, draws=draws),
        "churn": lambda: heun(optimum, z, churn=10, draws=draws),
    }[name]()
    near = distances(samples, images)
    assert near[:, 0].max() < 1e-3
    assert (near[:, 0] < near[:, 1] / 3).all()


def test_a_sample_does_not_depend_on_its_batch(tiles: dict[str, Tensor]) -> None:
    """Stopped early, where samples are no pictures yet, with noise on the way."""
    optimum = EmpiricalOptimum(tiles["train"][:300])

    def sample(index: Tensor) -> Tensor:
        z = latents(1, index, 3, 32, 32)
        return ddim(optimum, z, sigmas=vp_sigmas(8, last_step=300), eta=0.5, draws=Draws(1, "test", index))

    together = sample(torch.arange(16))
    for start in (0, 9):
        torch.testing.assert_close(sample(torch.tensor([start])), together[start : start + 1], rtol=0, atol=1e-9)


def test_what_cannot_be_is_said() -> None:
    images = pictures(300)[:10]
    optimum, z = EmpiricalOptimum(images), random(2, 3, 16, 16)
    for sigma in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="expected a number above 0"):
            optimum.denoise(z, sigma)
    with pytest.raises(ValueError, match="3 noise levels for 2 pictures"):
        optimum.denoise(z, torch.ones(3))
    with pytest.raises(ValueError, match="set without pictures"):
        EmpiricalOptimum(images[:0])
    with pytest.raises(ValueError, match=r"z of shape \[2, 3, 8, 8\], expected \[N, 3, 16, 16\]"):
        optimum.denoise(z[..., ::2, ::2], 1.0)
    with pytest.raises(ValueError, match="labels for a set that was given without"):
        optimum.denoise(z, 1.0, torch.tensor([0, 0]))
    with pytest.raises(ValueError, match="expected uint8 or floating-point"):
        EmpiricalOptimum(images.long())
    with pytest.raises(ValueError, match=r"expected \[n, C, H, W\] or \[n, D\]"):
        EmpiricalOptimum(images[:, 0, 0, 0])
    with pytest.raises(ValueError, match="to flip, expected pictures"):
        EmpiricalOptimum(random(4, 2), flips=True)
    with pytest.raises(ValueError, match="expected 10 whole numbers"):
        EmpiricalOptimum(images, torch.zeros(9, dtype=torch.int64))
    conditional = EmpiricalOptimum(images, torch.arange(10) % 2)
    with pytest.raises(ValueError, match="got no labels, expected 2"):
        conditional.denoise(z, 1.0)
    with pytest.raises(ValueError, match="the label 7, of which the set has no picture"):
        conditional.denoise(z, 1.0, torch.tensor([0, 7]))
    with pytest.raises(ValueError, match="expected one without"):
        conditional.optimal_loss([1.0])
