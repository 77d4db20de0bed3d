"""Graphs and rearrangements: formulas and patterns, multiply-accumulates, and what is refused."""

from functools import partial
from re import escape

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.reference import ReferenceModel
from maam.spec import Graph, Rearrange

SIGMOID = spec.Activation(function="sigmoid")
CONV = spec.Conv2d(in_channels=2, out_channels=2, kernel_size=3, padding=1)


def graph(formula, **children):
    arrays = {name: ((4, 1, 1), 2.0) for name in ("weight", "bias") if name in formula}
    return Graph(children=children, formula=formula, arrays=arrays)


X = np.random.default_rng(0).standard_normal((3, 4, 6, 5))
FORMULAS = {
    "x * 2 - x / 4 + -x": X * 2 - X / 4 - X,
    "1 / (x ** 2 + 1) ** 0.5 + (x ** 2 + 1) ** -0.5": 2 / np.sqrt(X**2 + 1),
    "a = x * weight; a + bias": 2 * X + 2,
    "x[1:3] * x[0:1]": X[:, 1:3] * X[:, :1],
    "concat(x, x[0:2])": np.concatenate((X, X[:, :2]), 1),
    "stack(x, 2 * x)": np.concatenate((X, 2 * X), 2),
    "s = stack(x, 2 * x); first(s, x) + last(s, x)": 3 * X,
    "unfold(fold(x, 2)[0:1] + fold(x, 2)[1:2], 2)": X[:, [0, 2]] + X[:, [1, 3]],
    "a = x * 1; like(a, a)": X,
}
PATTERNS = {
    "c h w -> h c w": X.transpose(0, 2, 1, 3),
    "c h w -> c (h w) 1": X.reshape(3, 4, 30, 1),
    "(g=2 c) h w -> (c g) h w": X[:, [0, 2, 1, 3]],
    "(g c=2) h w -> g c (w h)": X.reshape(3, 2, 2, 6, 5).transpose(0, 1, 2, 4, 3).reshape(3, 2, 2, 30),
    "c h w -> (c r=2) h w": X.repeat(2, 1),
    "c h w -> (r=2 c) h w 1": np.concatenate((X, X), 1)[..., None],
}
COMPUTED = [
    *((graph(formula), y) for formula, y in FORMULAS.items()),
    *((Rearrange(pattern=pattern), y) for pattern, y in PATTERNS.items()),
]


@pytest.mark.parametrize(("node", "expected"), COMPUTED, ids=[*FORMULAS, *PATTERNS])
def test_formulas_and_patterns(node, expected):
    arrays = {p.name: np.full(p.shape, p.init.value) for p in node.parameters()}
    y = ReferenceModel(node, arrays)(X)
    np.testing.assert_allclose(y, expected, rtol=1e-12 if isinstance(node, Graph) else 0)
    assert y.shape[1:] == node.output_shape(X.shape[1:])
    assert spec.parse_json(node.to_json()) == node
    assert hash(spec.parse_json(node.to_json())) == hash(node)


def test_products_and_folds_count_as_multiply_accumulates():
    tokens = Rearrange(pattern="c h w -> 1 c (h w)")
    product = graph("q(x) @ k(x)", q=tokens, k=Rearrange(pattern="c h w -> 1 (h w) c"))
    assert product.output_shape((4, 6, 5)) == (1, 4, 4)
    assert product.macs((4, 6, 5)) == 4 * 30 * 4
    folded = graph("unfold(conv(fold(x, 2)), 2)", conv=CONV)
    assert folded.macs((4, 6, 5)) == 2 * CONV.macs((2, 6, 5))
    assert [path for path, _, _, _ in folded.summary((4, 6, 5))] == ["conv", ""]


def test_parameters_have_a_first_axis_of_size_one():
    found = graph("x * weight + gate(bias * x)", gate=SIGMOID).parameters()
    assert [(p.name, p.shape, p.init.value) for p in found] == [(p, (1, 4, 1, 1), 2.0) for p in ("weight", "bias")]


INVALID_FORMULAS = {
    "x": "expected an operation at the end, such as `x * gate`",
    "a = x * 2; x": "expected an operation at the end",
    "a = x": "expected an expression at the end",
    "": "expected an expression at the end",
    "x *": "expected expressions in the syntax of Python, got 'x *'",
    "x * y": "unknown name or operation 'y'",
    "x ** 3": "unknown name or operation 'x ** 3'",
    "x if 1 else x": "unknown name or operation",
    "__import__('os')": "no layer or function '__import__'; expected one of gate, concat, ",
    "x.shape * 2": "unknown name or operation 'x.shape'",
    "x = x * 2; x + 1": "the name 'x' is already used",
    "gate = x * 2; x + 1": "the name 'gate' is already used",
    "import os; x * 2": "expected `name = expression`, got 'import os'",
    "x[1] * 2": "unknown name or operation 'x[1]'",
    "x[2:1] * 2": "expected channels [i:j] with 0 <= i < j, got [2:1]",
    "x[:1] * 2": "expected channels [i:j]",
    "gate(x, x)": "gate: expected one value, got 2",
    "like(x)": "like: expected 2 value(s)",
    "fold(x)": "fold: expected 1 value(s) and the number of groups",
    "fold(x, 0)": "fold: expected 1 value(s) and the number of groups",
    "unfold(x, 2)": "unfold: 2 groups were not folded before",
    "fold(gate(x), 2)": "expected a result with one map for each map of x (unfold what was folded)",
    "x * fold(x, 2)": "mul: one value has groups folded into the batch, another one has not",
    "a = gate(x); 2 * 3": "expected a result with one map for each map of x",
    "x * 2": "expected one call of every child, got 0 of gate",
    "gate(x) + gate(x)": "expected one call of every child, got 2 of gate",
    "(" * 300 + "x": "expected expressions in the syntax of Python",
}
INVALID_PATTERNS = {
    "c h w": "expected axes, an arrow and axes, such as 'c h w -> c (h w)', got 'c h w'",
    "c h w -> c h": "the axis 'w' is missing on the right side",
    "c h w -> c h w r": "the new axis 'r' needs a size, such as r=2",
    "c c w -> c w": "expected every axis once on each side",
    "(a b) h w -> a b h w": "expected at most one axis without a size in brackets",
    "(c h w -> c h w": "expected names of axes and brackets, got '(c h w'",
    "c h W -> c h W": "expected a name of an axis, name=size or 1, got 'W'",
    "c=0 h w -> c h w": "expected a name of an axis, name=size or 1, got 'c=0'",
}
EMPTY = {"a": ((0,), 0.0)}
INVALID = [
    *((partial(graph, formula, gate=SIGMOID), f"graph: formula: {text}") for formula, text in INVALID_FORMULAS.items()),
    *((partial(Rearrange, pattern=one), f"rearrange: pattern: {text}") for one, text in INVALID_PATTERNS.items()),
    (partial(Graph, children={"concat": SIGMOID}, formula="concat(x)"), "'concat' cannot be a name in it"),
    (partial(Graph, children={"0": SIGMOID}, formula="x * 2"), "'0' cannot be a name in it"),
    (partial(Graph, children={}, formula="x * 2", arrays={"a": ((1,), 0.0)}), "does not use the array a"),
    (partial(Graph, children={}, formula="x * a", arrays=EMPTY), "arrays: a: 0.0: input should be greater than"),
    (partial(Graph, children={}, formula="x * 2", arrays=3), "arrays: expected an object that maps names to"),
]


@pytest.mark.parametrize(("make", "message"), INVALID, ids=[message for _, message in INVALID])
def test_invalid(make, message):
    with pytest.raises(SpecError, match=escape(message)):
        make()
