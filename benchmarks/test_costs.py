"""The cost of layers and models in pytest-benchmark, to compare two commits. README.md has the command."""

from typing import Any

import numpy as np
import pytest

from benchmarks.cost.cases import LAYERS, MODELS, make_case

pytest.importorskip("pytest_benchmark")
SHAPES = {"layers": (8, 64, 16, 16), "models": (8, 3, 32, 32)}
CASES = [*(("layers", name) for name in LAYERS), *(("models", name) for name in MODELS)]


@pytest.mark.parametrize("kind", ["inference fp32", "training step fp32"])
@pytest.mark.parametrize("framework", ["mindspore", "torch"])
@pytest.mark.parametrize(("group", "case"), CASES)
def test_cost(benchmark: Any, framework: str, group: str, case: str, kind: str) -> None:
    """Time a case."""
    pytest.importorskip(framework)
    functions = pytest.importorskip(f"benchmarks.cost.{framework}_functions")
    x = np.random.default_rng(0).random(SHAPES[group]).astype(np.float32)
    function = functions.make_function(case, make_case(case, x.shape[1]), x, kind)
    benchmark.group = f"{group}, {kind}, {framework}"
    benchmark.pedantic(function, rounds=5, warmup_rounds=1)
