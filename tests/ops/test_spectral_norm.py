import copy
import io

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from pygan.ops import spectral_norm, spectral_normalize, spectral_sigma

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
    left, _ = torch.linalg.qr(torch.randn(20, 3, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(50, 3, dtype=torch.float64))
    weight = left @ torch.diag(left.new_tensor([3.0, 1.0, 0.5])) @ right.T
    sigma, u, v = spectral_sigma(weight, *start(weight), n_power_iterations=20)  # the error falls ninefold in each
    torch.testing.assert_close(sigma, sigma.new_tensor(3.0))
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


def test_sigma_has_gradients_of_first_and_second_order(implementation: str) -> None:
    weight = torch.randn(4, 3, 2, dtype=torch.float64, requires_grad=True)
    u, v = start(weight)

    def normalized(weight: Tensor) -> Tensor:
        return weight / spectral_sigma(weight, u, v, n_power_iterations=0)[0]

    assert torch.autograd.gradcheck(normalized, (weight,))
    assert torch.autograd.gradgradcheck(normalized, (weight,))


FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize("dtype", TOLERANCE)
# Columns that fill 16-byte vectors and that do not; more of them than a warp, and than a block, reads at once.
@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (9, 16, 1, 1), (3, 40, 4, 4), (2, 131, 2, 3)])
@pytest.mark.parametrize("n_power_iterations", [0, 2])
def test_normalized_weight_and_its_gradient(
    implementation: str, shape: tuple[int, ...], dtype: torch.dtype, layout: str, n_power_iterations: int
) -> None:
    generator = torch.Generator().manual_seed(2)
    weight, dy = (torch.randn(shape, generator=generator).to(dtype).to(memory_format=FORMATS[layout]) for _ in range(2))
    weight.requires_grad_()
    u, v = start(weight)
    normalized, sigma, new_u, new_v = spectral_normalize(weight, u, v, n_power_iterations)
    assert normalized.is_contiguous(memory_format=FORMATS[layout])
    assert not (sigma.requires_grad or new_u.requires_grad or new_v.requires_grad)

    matrix, a, b = weight.detach().double().flatten(1), u.double(), v.double()
    for _ in range(n_power_iterations):
        b = matrix.T @ a / (matrix.T @ a).norm()
        a = matrix @ b / (matrix @ b).norm()
    expected_sigma = a @ matrix @ b
    tolerance = TOLERANCE[dtype] * 4
    torch.testing.assert_close(new_u.double(), a, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(new_v.double(), b, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(sigma.double(), expected_sigma, rtol=tolerance, atol=tolerance)
    expected = (matrix / expected_sigma).view(shape)
    torch.testing.assert_close(normalized.detach().double(), expected, rtol=tolerance, atol=tolerance)

    (gradient,) = torch.autograd.grad(normalized, weight, dy)
    projected = dy.double().flatten(1) - (dy.double() * expected).sum() * torch.outer(a, b)
    expected = (projected / expected_sigma).view(shape)
    atol = tolerance * expected.abs().max().item()
    torch.testing.assert_close(gradient.double(), expected, rtol=4 * tolerance, atol=4 * atol)
    assert gradient.dtype == dtype


@pytest.mark.parametrize("layout", FORMATS)
def test_normalized_weight_has_gradients_of_first_and_second_order(implementation: str, layout: str) -> None:
    weight = torch.randn(3, 2, 2, 2, dtype=torch.float64).to(memory_format=FORMATS[layout]).requires_grad_()
    u, v = start(weight)

    def normalized(weight: Tensor) -> Tensor:
        return spectral_normalize(weight, u, v, n_power_iterations=0)[0]

    assert torch.autograd.gradcheck(normalized, (weight,))
    assert torch.autograd.gradgradcheck(normalized, (weight,))


def test_normalized_weight_has_a_gradient_of_third_order(implementation: str) -> None:
    weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    u, v = start(weight)

    def second(weight: Tensor) -> Tensor:
        normalized = spectral_normalize(weight, u, v, n_power_iterations=0)[0]
        (first,) = torch.autograd.grad(normalized.pow(3).sum(), weight, create_graph=True)
        return torch.autograd.grad(first.square().sum(), weight, create_graph=True)[0]

    assert torch.autograd.gradcheck(second, (weight,))


def test_normalizing_strided_and_empty_weights(implementation: str) -> None:
    weight = torch.randn(9, 6).T
    u, v = start(weight)
    for got, expected in zip(
        spectral_normalize(weight, u, v), spectral_normalize(weight.contiguous(), u, v), strict=True
    ):
        torch.testing.assert_close(got, expected)
    for shape in ((0, 4), (3, 0)):
        weight = torch.zeros(shape, requires_grad=True)
        normalized, sigma, u, v = spectral_normalize(weight, torch.ones(shape[0]), torch.ones(0))
        assert normalized.shape == shape and sigma == 0 and not u.any() and not v.any()
        assert torch.autograd.grad(normalized.sum(), weight)[0].shape == shape


def test_autocast_changes_nothing(implementation: str) -> None:
    weight = torch.randn(5, 7, requires_grad=True)
    u, v = start(weight)
    dy, device = torch.randn(5, 7), weight.device.type

    def everything() -> list[Tensor]:
        normalized, *rest = spectral_normalize(weight, u, v)
        gradient = torch.autograd.grad(normalized, weight, dy)[0]
        return [normalized, *rest, gradient, *spectral_sigma(weight, u, v)]

    expected = everything()
    with torch.autocast(device, torch.bfloat16):
        got = everything()
    for value, same in zip(got, expected, strict=True):
        assert value.dtype == torch.float32 and torch.equal(value, same)


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


def test_opcheck(namespace: str) -> None:
    ops = getattr(torch.ops, namespace)
    weight = torch.randn(4, 2, 3, 3).to(memory_format=torch.channels_last).requires_grad_()
    u, v = torch.randn(4), torch.randn(18)
    for op in (ops.spectral_sigma.default, ops.spectral_normalize.default):
        torch.library.opcheck(op, (weight, u, v, 1, 1e-12))
    torch.library.opcheck(
        ops.spectral_normalize_grad.default, (torch.randn(4, 2, 3, 3), weight, torch.tensor(2.0), u, v)
    )


def test_fake_kernels_check_what_the_kernels_check(namespace: str) -> None:
    ops = getattr(torch.ops, namespace)
    weight, u, v = torch.ones(3, 4), torch.ones(3), torch.ones(4)
    for op, arguments in (
        (ops.spectral_sigma, (weight, v, v, 1, 1e-12)),
        (ops.spectral_normalize, (weight, u.double(), v, 1, 1e-12)),
        (ops.spectral_normalize, (weight, u, v, -1, 1e-12)),
        (ops.spectral_normalize_grad, (torch.ones(4, 3), weight, torch.ones([]), u, v)),
    ):
        with pytest.raises(RuntimeError, match="spectral_norm: "):
            op(*arguments)
        with pytest.raises(ValueError, match=r"^spectral_norm: "):
            op(*[x.to("meta") if isinstance(x, Tensor) else x for x in arguments])


def test_compiles_without_graph_break(native: None) -> None:
    u, v = torch.randn(4), torch.randn(6)

    def loss(weight: Tensor) -> Tensor:
        sigma, _, _ = spectral_sigma(weight, u, v)
        return (weight / sigma).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    weight = torch.randn(4, 6, requires_grad=True)
    torch.testing.assert_close(torch.autograd.grad(compiled(weight), weight), torch.autograd.grad(loss(weight), weight))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_module_trains_compiled(native: None, backend: str) -> None:
    torch.manual_seed(0)
    eager = spectral_norm(nn.Conv2d(2, 4, 3))
    compiled = copy.deepcopy(eager)
    step = torch.compile(compiled, fullgraph=True, backend=backend)
    x = torch.randn(2, 2, 5, 5)
    for _ in range(2):
        eager(x).square().sum().backward()
        step(x).square().sum().backward()
    for (name, expected), got in zip(eager.state_dict().items(), compiled.state_dict().values(), strict=True):
        torch.testing.assert_close(got, expected, msg=name)
    for expected, got in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(got.grad, expected.grad)


def test_export_keeps_one_node(native: None) -> None:
    program = torch.export.export(spectral_norm(nn.Linear(3, 2)).eval(), (torch.randn(4, 3),))
    assert [node.target for node in program.graph.nodes].count(torch.ops.pygan.spectral_normalize.default) == 1


DIGEST = """
import hashlib, torch
from pygan.ops import group_spectral_sigma, spectral_normalize, spectral_sigma
torch.manual_seed(0)
torch.set_num_threads({threads})
digest = hashlib.sha256()
def add(*values):
    for value in values:
        digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
for dtype in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
    weight = torch.randn(130, 37, 3, 3).to(dtype).requires_grad_()
    vector = torch.float64 if dtype == torch.float64 else torch.float32
    add(*spectral_sigma(weight, torch.ones(130), torch.ones(333), 2))
    for w in (weight, weight.detach().to(memory_format=torch.channels_last).requires_grad_()):
        normalized, *rest = spectral_normalize(w, torch.ones(130), torch.ones(333))
        add(normalized, *rest, torch.autograd.grad(normalized, w, normalized.detach().cos())[0])
    Es = [torch.randn(7, 16, 24).to(dtype), torch.randn(7, 5, 9).to(dtype)]
    ones = [torch.ones(7, n, dtype=vector) for n in (16, 5, 24, 9)]
    sigmas, us, vs = group_spectral_sigma(Es, ones[:2], ones[2:])
    add(*sigmas, *us, *vs)
print(digest.hexdigest())
"""


@pytest.mark.slow
def test_same_bits_with_every_instruction_set_and_number_of_threads(digests_by_isa) -> None:
    digests = [digest for threads in (1, 2) for digest in digests_by_isa(DIGEST.format(threads=threads)).values()]
    assert len(set(digests)) == 1


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
    module = spectral_norm(make(), n_power_iterations=50)
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
    """Each backward pass uses the vectors of its own forward pass."""
    torch.manual_seed(0)
    module = spectral_norm(nn.Linear(3, 2, bias=False))
    original, vectors = module.parametrizations.weight.original, module.parametrizations.weight[0]
    x = torch.randn(2, 4, 3)
    expected = torch.zeros(2, 3)
    losses = []
    for batch in x:
        losses.append(module(batch).sum())
        sigma, outer = vectors.u @ original.detach() @ vectors.v, torch.outer(vectors.u, vectors.v)
        dy = batch.sum(0).expand(2, 3)
        expected += (dy - (dy * original.detach() / sigma).sum() * outer) / sigma
    sum(losses).backward()
    torch.testing.assert_close(original.grad, expected)


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


def test_module_keeps_channels_last(implementation: str) -> None:
    module = spectral_norm(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    weight = module.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    weight.sum().backward()
    assert module.parametrizations.weight.original.grad.is_contiguous(memory_format=torch.channels_last)


def test_module_in_half_precision(implementation: str) -> None:
    torch.manual_seed(0)
    module = spectral_norm(nn.Linear(30, 20)).bfloat16()
    assert module.parametrizations.weight[0].u.dtype == torch.bfloat16
    for _ in range(5):
        weight = module.weight
    assert weight.dtype == torch.bfloat16
    assert torch.linalg.matrix_norm(weight.float(), 2).item() == pytest.approx(1, abs=0.05)


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
