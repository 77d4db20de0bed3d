"""Random valid specs: all frameworks are inside the bounds of every layer, and of the whole model."""

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maam.parity import check, make_runners
from tests.parity.models import scrambled
from tests.strategies import specs

pytest.importorskip("torch")
pytest.importorskip("mindspore")

cases = itertools.count(1)
quiet = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
many = pytest.param(settings().max_examples, marks=pytest.mark.slow)


@pytest.mark.parametrize("count", [8, many])
def test_inside_the_bounds(count):
    @settings(quiet, max_examples=count)
    @given(specs(), st.integers(0, 1000))
    def compare(pair, seed):
        node, shape = pair
        images = np.random.default_rng(seed).standard_normal((8, *shape)).astype(np.float32)
        arrays, labels = scrambled(node, seed), np.zeros(len(images), np.int32)
        graph = next(cases) % 5 == 0  # graph mode compiles each model
        runners = [r for r in make_runners(node, arrays, compiled=False)[0] if graph or r.name != "mindspore graph"]
        stages = ["exchange", "layers", "forward", "gradients"]
        report = check(node, arrays, images=images, labels=labels, runners=runners, stages=stages)
        assert report.passed, report.to_markdown() + node.to_json()

    compare()
