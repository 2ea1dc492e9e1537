import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pygan.ops import spectral_norm, spectral_sigma

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


def start(weight: Tensor) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(weight.shape[0], dtype=weight.dtype), torch.randn(weight[0].numel(), dtype=weight.dtype)


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (3, 33), (31, 65), (4, 3, 3, 3), (8, 700), (600, 2), (7, 5, 1, 1)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_one_iteration(implementation: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    u, v = start(weight)
    matrix = weight.flatten(1).double()
    expected_v = matrix.T @ u.double()
    expected_v /= expected_v.norm()
    expected_u = matrix @ expected_v
    expected_sigma = expected_u.norm()
    sigma, new_u, new_v = spectral_sigma(weight, u, v)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(sigma.double(), expected_sigma, rtol=tolerance, atol=0)
    torch.testing.assert_close(new_v.double(), expected_v, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(new_u.double(), expected_u / expected_sigma, rtol=tolerance, atol=tolerance)
    assert (sigma.dtype, new_u.dtype, new_v.dtype) == (dtype,) * 3


def test_converges_to_the_largest_singular_value(implementation: str) -> None:
    weight = torch.randn(20, 50, dtype=torch.float64)
    sigma, u, v = spectral_sigma(weight, *start(weight), n_power_iterations=500)
    torch.testing.assert_close(sigma, torch.linalg.matrix_norm(weight, 2))
    torch.testing.assert_close(u @ weight, sigma * v)


def test_no_iteration_evaluates_the_vectors_as_they_are(implementation: str) -> None:
    weight = torch.randn(6, 9)
    u, v = start(weight)
    sigma, new_u, new_v = spectral_sigma(weight, u, v, n_power_iterations=0)
    torch.testing.assert_close(sigma, u @ weight @ v)
    assert torch.equal(u, new_u) and torch.equal(v, new_v)
    assert new_u.data_ptr() != u.data_ptr() and new_v.data_ptr() != v.data_ptr()


@pytest.mark.parametrize("channels_last", [False, True])
def test_inputs_are_not_modified(implementation: str, channels_last: bool) -> None:
    weight = torch.randn(6, 4, 3, 3)
    if channels_last:
        weight = weight.to(memory_format=torch.channels_last)
    u, v = start(weight)
    before = [x.clone() for x in (weight, u, v)]
    sigma, _, _ = spectral_sigma(weight, u, v, n_power_iterations=3)
    for now, then in zip((weight, u, v), before, strict=True):
        assert torch.equal(now, then)
    torch.testing.assert_close(sigma, spectral_sigma(weight.contiguous(), u, v, n_power_iterations=3)[0])


def test_strided_weight(implementation: str) -> None:
    weight = torch.randn(9, 6).T
    u, v = start(weight)
    torch.testing.assert_close(spectral_sigma(weight, u, v)[0], spectral_sigma(weight.contiguous(), u, v)[0])


def test_zero_and_empty_weights(implementation: str) -> None:
    sigma, u, v = spectral_sigma(torch.zeros(3, 4), torch.ones(3), torch.ones(4))
    assert sigma == 0 and not u.any() and not v.any()
    assert spectral_sigma(torch.zeros(0, 4), torch.ones(0), torch.ones(0))[0] == 0
    assert spectral_sigma(torch.zeros(3, 0), torch.ones(3), torch.ones(0))[0] == 0


def test_not_a_number_shows(implementation: str) -> None:
    weight = torch.ones(3, 4)
    weight[1, 2] = torch.nan
    assert spectral_sigma(weight, torch.ones(3), torch.ones(4))[0].isnan()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradient_is_the_outer_product(implementation: str, dtype: torch.dtype) -> None:
    weight = torch.randn(5, 2, 3, 1, dtype=dtype, requires_grad=True)
    sigma, u, v = spectral_sigma(weight, *start(weight))
    assert not u.requires_grad and not v.requires_grad
    (gradient,) = torch.autograd.grad(3 * sigma, weight)
    expected = 3 * torch.outer(u.double(), v.double()).reshape(weight.shape)
    torch.testing.assert_close(gradient.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_gradients_of_first_and_second_order(implementation: str) -> None:
    weight = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    u, v = start(weight)

    def normalized(weight: Tensor) -> Tensor:
        return weight / spectral_sigma(weight, u, v, n_power_iterations=0)[0]

    assert torch.autograd.gradcheck(normalized, (weight,))
    assert torch.autograd.gradgradcheck(normalized, (weight,))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((torch.ones(3), torch.ones(3), torch.ones(1)), r"weight has shape \[3\], expected two or more dimensions"),
        (
            (torch.ones(3, 4, dtype=torch.int32), torch.ones(3), torch.ones(4)),
            "weight is torch.int32, expected float32",
        ),
        ((torch.ones(3, 4), torch.ones(4), torch.ones(4)), r"u has shape \[4\], expected \[3\] for a weight of"),
        ((torch.ones(3, 2, 2), torch.ones(3), torch.ones(2)), r"v has shape \[2\], expected \[4\] for a weight of"),
        ((torch.ones(3, 4), torch.ones(3, dtype=torch.int64), torch.ones(4)), "u is torch.int64, expected a floating"),
        ((torch.ones(3, 4), torch.ones(3, device="meta"), torch.ones(4)), "u is on meta and weight on cpu"),
        ((torch.ones(3, 4), torch.ones(3), torch.ones(4), -1), "n_power_iterations is -1, expected at least 0"),
    ],
)
def test_errors_are_sentences(implementation: str, arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^spectral_norm: {sentence}"):
        spectral_sigma(*arguments)


def test_opcheck(native: None) -> None:
    u, v = torch.randn(4), torch.randn(18)
    for weight in (torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3, requires_grad=True), torch.randn(18, 4).T):
        for n_power_iterations in (0, 2):
            torch.library.opcheck(torch.ops.pygan.spectral_sigma.default, (weight, u, v, n_power_iterations, 1e-12))


def test_compiles_without_graph_break(native: None) -> None:
    u, v = torch.randn(4), torch.randn(6)

    def loss(weight: Tensor) -> Tensor:
        sigma, _, _ = spectral_sigma(weight, u, v)
        return (weight / sigma).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    weight = torch.randn(4, 6, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(weight), weight), torch.autograd.grad(loss(weight), weight))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(3, 8, 3),
        lambda: nn.Linear(5, 4),
        lambda: nn.Embedding(7, 6),
        lambda: nn.ConvTranspose2d(3, 8, 3),
    ],
)
def test_module_weight_has_norm_one(implementation: str, make) -> None:
    torch.manual_seed(0)
    module = spectral_norm(make())
    for _ in range(50):
        weight = module.weight
    if isinstance(module, nn.ConvTranspose2d):
        weight = weight.transpose(0, 1)
    assert torch.linalg.matrix_norm(weight.flatten(1), 2).item() == pytest.approx(1, abs=1e-4)


def test_module_trains_in_training_mode_and_is_frozen_by_eval(implementation: str) -> None:
    torch.manual_seed(0)
    module = spectral_norm(nn.Linear(30, 20))
    vectors = module.parametrizations.weight[0]
    before = vectors.u.clone()
    module(torch.randn(2, 30))
    after = vectors.u.clone()
    assert not torch.equal(before, after)
    module.eval()
    expected = module.parametrizations.weight.original / (
        vectors.u @ module.parametrizations.weight.original @ vectors.v
    )
    torch.testing.assert_close(module.weight, expected)
    assert torch.equal(vectors.u, after)


def test_two_forwards_before_one_backward(implementation: str) -> None:
    module = spectral_norm(nn.Linear(3, 2))
    (module(torch.randn(4, 3)).sum() + module(torch.randn(4, 3)).sum()).backward()
    assert module.parametrizations.weight.original.grad.isfinite().all()


def test_state_goes_through_a_checkpoint(implementation: str) -> None:
    torch.manual_seed(0)
    trained = spectral_norm(nn.Conv2d(3, 4, 3))
    trained(torch.randn(1, 3, 5, 5))
    assert sorted(trained.state_dict()) == [
        "bias",
        "parametrizations.weight.0.u",
        "parametrizations.weight.0.v",
        "parametrizations.weight.original",
    ]
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    fresh = spectral_norm(nn.Conv2d(3, 4, 3))
    fresh.load_state_dict(torch.load(file, weights_only=True))
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(fresh(x), trained(x))
    assert torch.equal(copy.deepcopy(trained).eval()(x), fresh.eval()(x))


def test_pruned_weights_stay_zero(implementation: str) -> None:
    """A mask on the original parameter composes with the norm: zeros stay zeros."""
    module = spectral_norm(nn.Linear(6, 4))
    mask = torch.rand(4, 6) > 0.5
    with torch.no_grad():
        module.parametrizations.weight.original.mul_(mask)
    assert not module.weight[~mask].any()
    assert parametrize.is_parametrized(module, "weight")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((nn.ReLU(),), "ReLU has no parameter 'weight'"),
        ((nn.BatchNorm2d(3),), r"weight has shape \[3\], expected two or more dimensions"),
        ((nn.Linear(2, 2), "weight", 0), "n_power_iterations is 0, expected at least 1"),
    ],
)
def test_module_errors_are_sentences(implementation: str, arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^spectral_norm: {sentence}"):
        spectral_norm(*arguments)
