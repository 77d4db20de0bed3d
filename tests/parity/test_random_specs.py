"""Random valid specs: all frameworks inside the bounds of every layer, and of the whole in eval mode."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from maam.parity import check, make_runners

pytest.importorskip("torch")
pytest.importorskip("mindspore")


def _strategies():
    path = Path(__file__).parents[1] / "strategies.py"
    sys.path.insert(0, str(path.parent))
    found = importlib.util.spec_from_file_location("strategies", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


GRAPH_EVERY = 5
count = 0


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])
@given(_strategies().specs(), st.integers(0, 1000))
def test_inside_the_bounds(pair, seed):
    global count
    count += 1
    node, shape = pair
    generator = np.random.default_rng(seed)
    images = generator.standard_normal((8, *shape)).astype(np.float32)
    arrays = sibling_scrambled(node, seed)
    runners = [
        runner
        for runner in make_runners(node, arrays, compiled=False)[0]
        if runner.name != "mindspore graph" or count % GRAPH_EVERY == 0
    ]
    report = check(
        node,
        arrays,
        images=images,
        labels=np.zeros(len(images), np.int32),
        runners=runners,
        stages=["exchange", "layers", "forward", "gradients"],
    )
    assert report.passed, report.to_markdown() + node.to_json()


def sibling_scrambled(node, seed):
    path = Path(__file__).with_name("conftest.py")
    found = importlib.util.spec_from_file_location("parity_conftest", path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module.scrambled(node, seed)
