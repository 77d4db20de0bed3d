"""Layers and models in both frameworks by pytest-benchmark: JSON with machine and commit, comparisons between commits.

OMP_NUM_THREADS=1 python -m pytest benchmarks --benchmark-group-by=group --benchmark-save=NAME
"""

from importlib import import_module

import numpy as np
import pytest

from benchmarks.cost.cases import LAYERS, MODELS, make_case

pytest.importorskip("pytest_benchmark")
SHAPES = {"layers": (8, 64, 16, 16), "models": (8, 3, 32, 32)}
CASES = [*(("layers", name) for name in LAYERS), *(("models", name) for name in MODELS)]


@pytest.mark.parametrize("kind", ["inference fp32", "training step fp32"])
@pytest.mark.parametrize("framework", ["mindspore", "torch"])
@pytest.mark.parametrize(("group", "case"), CASES)
def test_cost(benchmark, framework, group, case, kind):
    pytest.importorskip(framework)
    x = np.random.default_rng(0).random(SHAPES[group]).astype(np.float32)
    functions = import_module(f"maam.{framework}.benchmarks").make_functions(
        case, make_case(case, x.shape[1]), x, [kind]
    )
    benchmark.group = f"{group}, {kind}, {framework}"
    benchmark.pedantic(functions[kind], rounds=5, warmup_rounds=1)
