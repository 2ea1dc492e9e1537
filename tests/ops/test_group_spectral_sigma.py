import pytest
import torch
from torch import Tensor

from pygan.ops import group_spectral_sigma

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 1e-5, torch.bfloat16: 1e-5}
SHAPES = [(5, 7), (16, 16), (1, 3), (4, 1), (2, 150)]


def layers(
    classes: int, shapes: list[tuple[int, int]], dtype: torch.dtype = torch.float32
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    vector = torch.float64 if dtype == torch.float64 else torch.float32
    Es = [torch.randn(classes, h, w, generator=generator).to(dtype) for h, w in shapes]
    us = [torch.randn(classes, h, generator=generator).to(vector) for h, _ in shapes]
    vs = [torch.randn(classes, w, generator=generator).to(vector) for _, w in shapes]
    return Es, us, vs


def clamped(x: Tensor, eps: float) -> Tensor:
    return x / max(x.norm().item(), eps)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n_power_iterations", [0, 1, 3])
def test_every_matrix_alone(implementation: str, dtype: torch.dtype, n_power_iterations: int) -> None:
    Es, us, vs = layers(3, SHAPES, dtype)
    sigmas, new_us, new_vs = group_spectral_sigma(Es, us, vs, n_power_iterations)
    tolerance = TOLERANCE[dtype]
    for layer, E in enumerate(Es):
        assert sigmas[layer].dtype == us[layer].dtype
        for c in range(3):
            matrix, u, v = E[c].double(), us[layer][c].double(), vs[layer][c].double()
            for _ in range(n_power_iterations):
                v = clamped(matrix.T @ u, 1e-3)
                u = clamped(matrix @ v, 1e-3)
            for got, expected in ((sigmas, u @ matrix @ v), (new_us, u), (new_vs, v)):
                torch.testing.assert_close(got[layer][c].double(), expected, rtol=tolerance, atol=tolerance)


def test_converges_to_the_largest_singular_values(implementation: str) -> None:
    vectors = torch.linalg.qr(torch.randn(3, 8, 2, dtype=torch.float64))[0]
    E = vectors @ torch.diag(vectors.new_tensor([2.0, 0.5])) @ vectors.mT
    (sigma,), _, _ = group_spectral_sigma([E], [torch.ones(3, 8).double()], [torch.ones(3, 8).double()], 15)
    torch.testing.assert_close(sigma, torch.full([3], 2.0, dtype=torch.float64))


def test_small_matrices_are_divided_by_eps(implementation: str) -> None:
    """Below eps nothing is blown up: E = 1e-4 makes v = 0.1, u = 0.01 and sigma = u E v."""
    one = torch.ones(1, 1)
    (sigma,), (u,), (v,) = group_spectral_sigma([torch.full([1, 1, 1], 1e-4)], [one], [one], n_power_iterations=1)
    torch.testing.assert_close([sigma, u, v], [torch.tensor([1e-7]), 0.01 * one, 0.1 * one])


def test_inputs_are_not_modified(implementation: str) -> None:
    inputs = layers(2, [(3, 4), (2, 5)])
    before = [[x.clone() for x in group] for group in inputs]
    group_spectral_sigma(*inputs)
    for now, then in zip(inputs, before, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(now, then, strict=True))


def test_strided_and_empty_inputs(implementation: str) -> None:
    Es, us, vs = layers(3, [(4, 5), (2, 3)])
    strided = [E.mT.contiguous().mT for E in Es]
    torch.testing.assert_close(group_spectral_sigma(strided, us, vs), group_spectral_sigma(Es, us, vs))
    (sigma,), (u,), (v,) = group_spectral_sigma(*layers(0, [(2, 3)]))
    assert (sigma.shape, u.shape, v.shape) == ((0,), (0, 2), (0, 3))
    (sigma,), (u,), (v,) = group_spectral_sigma(*layers(2, [(0, 3)]))
    assert not sigma.any() and u.shape == (2, 0) and not v.any()


def test_more_layers_than_one_launch_takes(implementation: str) -> None:
    Es, us, vs = layers(1, [(2, 3)] * 50)
    sigmas, _, _ = group_spectral_sigma(Es, us, vs)
    assert len(sigmas) == 50
    torch.testing.assert_close(sigmas[49], group_spectral_sigma(Es[49:], us[49:], vs[49:])[0][0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_is_the_outer_product(implementation: str, dtype: torch.dtype) -> None:
    Es, us, vs = layers(2, [(3, 4), (2, 5)], dtype)
    Es = [E.requires_grad_() for E in Es]
    sigmas, new_us, new_vs = group_spectral_sigma(Es, us, vs)
    assert not any(x.requires_grad for x in new_us + new_vs)
    gradients = torch.autograd.grad(sum(sigma.square().sum() for sigma in sigmas), Es)
    for gradient, sigma, u, v in zip(gradients, sigmas, new_us, new_vs, strict=True):
        expected = 2 * sigma.detach().view(2, 1, 1) * u.unsqueeze(2) * v.unsqueeze(1)
        torch.testing.assert_close(gradient, expected.to(dtype))


def test_one_layer_alone_may_have_a_gradient(implementation: str) -> None:
    Es, us, vs = layers(2, [(3, 4), (2, 5)])
    Es[1].requires_grad_()
    sigmas, _, (_, v) = group_spectral_sigma(Es, us, vs)
    (gradient,) = torch.autograd.grad(sigmas[1].sum(), Es[1])
    torch.testing.assert_close(gradient.norm(dim=(1, 2)), v.norm(dim=1))  # |u v^T| with |u| = 1


def test_gradients_of_first_and_second_order(implementation: str) -> None:
    Es, us, vs = layers(2, [(2, 3), (3, 1)], torch.float64)
    Es = [E.requires_grad_() for E in Es]

    def penalty(*Es: Tensor) -> Tensor:
        return torch.stack(group_spectral_sigma(Es, us, vs, n_power_iterations=0)[0]).square().sum()

    assert torch.autograd.gradcheck(penalty, Es)
    assert torch.autograd.gradgradcheck(penalty, Es)


def test_autocast_changes_nothing(implementation: str) -> None:
    inputs = layers(2, [(3, 4)])
    expected = group_spectral_sigma(*inputs)
    with torch.autocast(inputs[0][0].device.type, torch.bfloat16):
        got = group_spectral_sigma(*inputs)
    for value, same in zip(got, expected, strict=True):
        assert value[0].dtype == torch.float32 and torch.equal(value[0], same[0])


E, U, V = torch.ones(2, 3, 4), torch.ones(2, 3), torch.ones(2, 4)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (([], [], []), "got 0 matrices, 0 us and 0 vs, expected as many of each, and at least one"),
        (([E], [U], []), "got 1 matrices, 1 us and 0 vs"),
        (([E.int()], [U], [V]), r"Es\[0\] is torch.int32, expected float32"),
        (([E[0]], [U], [V]), r"Es\[0\] has shape \[3, 4\], expected \[C, h, w\] with the C of Es\[0\]"),
        (([E, E[:1]], [U, U[:1]], [V, V[:1]]), r"Es\[1\] has shape \[1, 3, 4\], expected \[C, h, w\]"),
        (([E, E.double()], [U, U], [V, V]), r"Es\[1\] is torch.float64, expected torch.float32"),
        (([E], [V], [V]), r"us\[0\] has shape \[2, 4\], expected \[2, 3\] for matrices of shape \[2, 3, 4\]"),
        (([E], [U], [U]), r"vs\[0\] has shape \[2, 3\], expected \[2, 4\]"),
        (([E.half()], [U.half()], [V]), r"us\[0\] is torch.float16, expected torch.float32"),
        (([E], [U], [V.to("meta")]), r"vs\[0\] is on meta, but Es\[0\] on cpu"),
        (([E], [U], [V], -1), "n_power_iterations is -1, expected at least 0"),
    ],
)
def test_errors_are_sentences(implementation: str, arguments: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=f"^group_spectral_sigma: {sentence}"):
        group_spectral_sigma(*arguments)


def test_operator_checks_too(namespace: str) -> None:
    operator = getattr(torch.ops, namespace).group_spectral_sigma
    with pytest.raises(RuntimeError, match="group_spectral_sigma: each E must be"):
        operator([E], [V], [V], 1, 1e-3)
    with pytest.raises(ValueError, match=r"^group_spectral_sigma: us\[0\] has shape"):
        operator([E.to("meta")], [V.to("meta")], [V.to("meta")], 1, 1e-3)


def test_opcheck(namespace: str) -> None:
    Es, us, vs = layers(2, [(3, 4), (2, 5)])
    Es = [E.requires_grad_() for E in Es]
    torch.library.opcheck(getattr(torch.ops, namespace).group_spectral_sigma.default, (Es, us, vs, 2, 1e-3))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_without_graph_break(native: None, backend: str) -> None:
    Es, us, vs = layers(2, [(3, 4), (2, 5)])
    Es = [E.requires_grad_() for E in Es]

    def penalty(Es: list[Tensor]) -> Tensor:
        return torch.stack(group_spectral_sigma(Es, us, vs)[0]).square().sum()

    compiled = torch.compile(penalty, fullgraph=True, backend=backend)
    torch.testing.assert_close(torch.autograd.grad(compiled(Es), Es), torch.autograd.grad(penalty(Es), Es))


def test_export_keeps_one_node(native: None) -> None:
    class Module(torch.nn.Module):
        def forward(self, Es: list[Tensor], us: list[Tensor], vs: list[Tensor]) -> list[Tensor]:
            return group_spectral_sigma(Es, us, vs)[0]

    program = torch.export.export(Module(), layers(2, [(3, 4), (2, 5)]))
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.pygan.group_spectral_sigma.default) == 1
