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
random_specs = given(specs(), st.integers(0, 1000))
quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


@settings(suppress_health_check=quiet, max_examples=8)
@random_specs
def test_a_sample_is_inside_the_bounds(pair, seed):
    compare(*pair, seed)


@pytest.mark.slow
@settings(suppress_health_check=quiet)
@random_specs
def test_inside_the_bounds(pair, seed):
    compare(*pair, seed)


def compare(node, shape, seed):
    images = np.random.default_rng(seed).standard_normal((8, *shape)).astype(np.float32)
    arrays = scrambled(node, seed)
    graph = next(cases) % 5 == 0  # graph mode compiles each model
    runners = [r for r in make_runners(node, arrays, compiled=False)[0] if graph or r.name != "mindspore graph"]
    stages = ["exchange", "layers", "forward", "gradients"]
    labels = np.zeros(len(images), np.int32)
    report = check(node, arrays, images=images, labels=labels, runners=runners, stages=stages)
    assert report.passed, report.to_markdown() + node.to_json()
