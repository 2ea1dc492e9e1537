"""The common ground of the metrics: clean-fid's resize, features that depend on the picture alone, checks, records."""

import json
from collections.abc import Iterator

import pytest
import scipy.stats
import torch
from torch import Tensor, nn

from pygan.errors import ConfigError, NumericalError
from pygan.features.frozen import FrozenNetwork
from pygan.metrics.base import extract, network_spec, prepared, protocol_record, wilson
from pygan.metrics.resize import resize


class _Tiny(FrozenNetwork):
    """A strided convolution on 24x24 pictures; features overflow where `gain` is too large."""

    usual_taps = ("conv",)

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__("tiny", resolution=24, mean=(0.0,) * 3, std=(255.0,) * 3)
        self.conv = nn.Conv2d(3, 16, 5, 2)
        self.gain = gain
        self.freeze()

    def _walk(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        x = self.conv(x)
        yield "conv", x
        yield "pooled", x.mean((2, 3)) * self.gain


def _images(n: int, side: int = 32) -> Tensor:
    return torch.randint(0, 256, (n, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(n))


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 64), (3, 10), (640, 1000), (64, 64)])
def test_shares_have_the_interval_of_scipy(hits: int, n: int) -> None:
    expected = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    low, high = wilson(hits, n)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= hits / n <= high <= 1


def test_features_do_not_depend_on_batch_or_order() -> None:
    network, images = _Tiny(), _images(23)
    rows = extract(images, network, batch=5)
    assert rows.shape == (23, 16) and rows.dtype == torch.float32
    assert torch.equal(extract(images.flip(0), network, batch=5).flip(0), rows)
    assert torch.equal(extract(images[:7], network, batch=5), rows[:7])
    torch.testing.assert_close(extract(images, network, batch=23), rows, rtol=1e-5, atol=1e-6)


def test_features_are_those_of_the_network_on_the_resized_picture() -> None:
    network, images = _Tiny(), _images(3)
    expected = network.pooled(resize(images, 24) / 127.5 - 1)
    torch.testing.assert_close(extract(images, network), expected, rtol=1e-5, atol=1e-6)


def test_features_that_overflow_are_an_error() -> None:
    with pytest.raises(NumericalError, match="tiny: 3 of 3"):
        extract(_images(3), _Tiny(float("inf")))


def test_prepared_orders_by_content() -> None:
    real, gen = torch.randn(20, 6), torch.randn(30, 6)
    first = prepared(real, gen)
    second = prepared(real.flip(0), gen[torch.randperm(30)])
    assert all(torch.equal(a, b) and a.dtype == torch.float64 for a, b in zip(first, second, strict=True))
    assert torch.equal(first[0].sort(0).values, real.double().sort(0).values)


def test_prepared_refuses_what_cannot_be_compared() -> None:
    good = torch.randn(5, 6)
    with pytest.raises(ValueError, match="expected features"):
        prepared(good, torch.randn(5, 7))
    with pytest.raises(ValueError, match="at least 2 rows"):
        prepared(good, good[:1])
    bad = good.clone()
    bad[1, 2] = float("inf")
    with pytest.raises(NumericalError, match="generated features: 1 of 5"):
        prepared(good, bad)


def test_network_spec_takes_metric_networks_and_the_bank() -> None:
    assert network_spec({"kind": "mobilenet_v2", "resolution": 64}, "evaluate.network").resolution == 64
    assert network_spec({"kind": "hed_vgg16"}).kind == "hed_vgg16"
    with pytest.raises(ConfigError, match=r"evaluate\.network\.kind: got 'inception'"):
        network_spec({"kind": "inception"}, "evaluate.network")
    with pytest.raises(ConfigError, match=r"evaluate\.network\.resolution"):
        network_spec({"kind": "mobilenet_v2", "resolution": 7}, "evaluate.network")


def test_the_record_is_json() -> None:
    record = protocol_record(_Tiny(), n_real=3, n_gen=4, reference_split="test", seed=5)
    assert json.loads(json.dumps(record)) == record
    assert record["network"] == "tiny 24px" and record["reference_split"] == "test" and "torch" in record["versions"]


def test_features_are_computed_with_less_at_a_time_where_memory_is_short() -> None:
    class Narrow(_Tiny):
        def _vector(self, x: Tensor) -> Tensor:
            if len(x) > 3:
                raise torch.OutOfMemoryError("out of memory")
            return super()._vector(x)

    torch.manual_seed(0)
    narrow, wide = Narrow(), _Tiny()
    wide.conv = narrow.conv
    images = _images(7)
    torch.testing.assert_close(extract(images, narrow, batch=8), extract(images, wide, batch=2), rtol=0, atol=0)
