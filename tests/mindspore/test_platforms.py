"""Every cell and operator that the backend uses supports Ascend according to MindSpore's documentation."""

import ast
import inspect
import re

import pytest
from mindspore import nn, ops

from maam.mindspore import cells, export, primitives, runner

NAMESPACES = {"nn": nn, "ops": ops}


def used(module):
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in NAMESPACES:
            yield f"{node.value.id}.{node.attr}"


def platforms(name):
    """Return the platforms that the docstring of a cell or operator names."""
    namespace, _, attribute = name.partition(".")
    text = inspect.getdoc(getattr(NAMESPACES[namespace], attribute)) or ""
    if other := re.search(r"Refer to :func:`mindspore\.(ops\.\w+)` for more details", text):
        return platforms(other[1])
    found = re.search(r"Supported Platforms:\s*\n(.*)", text)
    return set(re.findall(r"``(\w+)``", found[1])) if found else None


NAMES = sorted({name for module in (primitives, cells, runner, export) for name in used(module)})
SEVERAL = ["nn.DistributedGradReducer", "nn.SyncBatchNorm", "ops.AllGather", "ops.AllReduce"]
"""The names for training in several processes, which need not run on one CPU."""


def test_the_source_is_read():
    cells = (*primitives.ACTIVATIONS.values(), *primitives.NORMS.values())
    layers = {f"nn.{cell.__name__}" for cell in cells if cell.__module__.startswith("mindspore.")}
    some = {"nn.Conv2d", "nn.BatchNorm2d", "nn.GELU", "ops.matmul", "ops.Gather", "ops.Exp"}
    assert some | layers | set(SEVERAL) <= set(NAMES)
    assert len(NAMES) >= 25


@pytest.mark.parametrize("name", NAMES)
def test_runs_on_ascend(name):
    assert {"Ascend"} | ({"CPU"} if name not in SEVERAL else set()) <= platforms(name)


@pytest.mark.parametrize("name", ["ops.lgamma", "ops.lrn"])
def test_an_operator_without_ascend_is_noticed(name):
    assert platforms(name) == {"GPU", "CPU"}
