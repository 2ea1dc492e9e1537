"""The published heads: parameters, sizes of maps and levels, class projection, and what is refused."""

import math

import pytest
import torch

from pygan.discriminators.heads import published_head

CLIP = [(768, 7, 7), (768, 7, 7), (512,)]
DINO = [(768, 14, 14), (768, 14, 14), (768,)]
PUBLISHED = {
    "clip": (CLIP, 3_671_555, (9, 9, 1)),
    "dino": (DINO, 1_868_547, (9, 9, 1)),
    "swin": ([(768, 7, 7)], 2_360_065, (1,)),
    "vgg": ([(512, 7, 7)], 1_770_241, (1,)),
    "seg_ade, det_coco": ([(768, 8, 8)], 2_818_817, (1,)),
    "normals": ([(512, 8, 8)], 2_228_993, (1,)),
    "face_seg": ([(256, 8, 8)], 1_639_169, (1,)),
    "clip, one level": ([(512,)], 512 * 256 + 256 + 256 + 1, (1,)),
}


def taps_of(shapes, n=2):
    return [torch.randn(n, *shape) for shape in shapes]


@pytest.mark.parametrize("layers", ["equalized", "spectral"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_levels_are_the_published_ones(name, layers):
    shapes, parameters, sizes = PUBLISHED[name]
    head = published_head(shapes, layers=layers)
    assert sum(p.numel() for p in head.parameters()) == parameters
    assert head.sizes == sizes
    assert head(taps_of(shapes), None).shape == (sum(sizes), 2)


def test_weights_of_the_biggan_branch_are_normal_with_deviation_0_02():
    head = published_head([(768, 7, 7)], layers="spectral", activation="relu", init="normal", num_classes=10)
    weights = {name: p for name, p in head.named_parameters() if p.dim() > 1}
    assert any("embed" in name for name in weights)
    drawn = torch.cat([p.detach().flatten() for p in weights.values()])
    error = 0.02 / math.sqrt(2 * len(drawn))  # of a deviation estimated from that many draws
    assert abs(drawn.std().item() - 0.02) < 5 * error
    assert abs(drawn.mean().item()) < 5 * 0.02 / math.sqrt(len(drawn))


def test_equalized_layers_start_from_unit_normals_and_zero_biases():
    head = published_head([(768, 7, 7)], layers="equalized")
    for name, parameter in head.named_parameters():
        if name.endswith("bias"):
            assert (parameter == 0).all()
        else:
            assert abs(parameter.mean()) < 5 / math.sqrt(parameter.numel())
            assert abs(parameter.std() - 1) < 5 / math.sqrt(2 * parameter.numel())


def test_spectral_layers_have_a_spectral_norm_of_one():
    head = published_head([(16, 4, 4)], layers="spectral", width=8).eval()
    weights = [m.weight for m in head.modules() if hasattr(m, "parametrizations")]
    assert len(weights) == 3
    for weight in weights:
        sigma = torch.linalg.matrix_norm(weight.flatten(1), 2)
        assert 0.9 < sigma < 1.5  # the power iteration approaches it from below


@pytest.mark.parametrize("shapes", [CLIP, [(16, 6, 6)]])
def test_the_class_projection_is_added_to_the_last_level(shapes):
    torch.manual_seed(0)
    head = published_head(shapes, layers="spectral", width=8, num_classes=3).eval()
    dense = next(m for m in head.modules() if getattr(m, "embed", None) is not None)
    taps, c = taps_of(shapes), torch.tensor([0, 2])
    with torch.no_grad():
        logits = head(taps, c)
        hidden = dense.layers(taps[-1])
        expected = (dense.embed.weight[c] * hidden).sum(1)
        dense.embed.weight.zero_()
        without = head(taps, c)
    torch.testing.assert_close(logits[-1] - without[-1], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(logits[:-1], without[:-1])


def test_a_blurred_constant_stays_constant_inside():
    """[1, 3, 3, 1] / 8 along both axes has sum 1."""
    blur = published_head([(3, 8, 8)], layers="spectral").branch.layers[0][0]
    assert torch.allclose(blur(torch.ones(1, 3, 8, 8))[..., 2:-2, 2:-2], torch.tensor(1.0))


def test_what_does_not_fit_is_refused_in_a_sentence():
    with pytest.raises(ValueError, match=r"heads: equalized needs maps of at least 2x2 pixels, got 1x1: raise"):
        published_head([(8, 1, 1)], layers="equalized")
    with pytest.raises(ValueError, match="equalized has leaky ReLU, its own initialization and no classes"):
        published_head([(8, 4, 4)], layers="equalized", num_classes=2)
