"""Graphs and rearrangements: formulas and patterns, multiply-accumulates, and what is refused."""

import contextlib
from functools import partial
from re import escape

import numpy as np
import pytest

from maam import spec
from maam.errors import SpecError
from maam.reference import ReferenceModel
from maam.spec import Graph, Rearrange
from maam.spec.composites import plain_signature
from tests.spec.nodes import SIGMOID, conv, graph, norm

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
    "x * 2 ** 0.5 / 8 ** -0.5 + x * 99999999999999999999 / 1e20": 5 * X,
    "a = weight + 0 * x; concat(first(a, x) * x, like(a, x), resize(bias, x) * x)": np.concatenate(
        (2 * X, np.full_like(X, 2), 2 * X), 1
    ),
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
    used = [name for name in ("weight", "bias") if isinstance(node, Graph) and name in node.formula]
    assert [(p.name, p.shape, p.init.value) for p in node.parameters()] == [(one, (1, 4, 1, 1), 2.0) for one in used]
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
    folded = graph("unfold(conv(fold(x, 2)), 2)", conv=conv(2, 2))
    assert folded.macs((4, 6, 5)) == 2 * conv(2, 2).macs((2, 6, 5))
    assert [path for path, _, _, _ in folded.summary((4, 6, 5))] == ["conv", ""]


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
    "x + " * 220 + "x": "nested too deeply: expected at most 200 levels",
    "gate(x) * " + "9" * 400: "expected numbers of at most 3.4e+38, got 999",
    "gate(x) * -1e999": "expected numbers of at most 3.4e+38, got inf",
    "gate(x) * (1e30 * 1e30)": "expected real numbers of at most 3.4e+38, got '1e+30 * 1e+30'",
    "gate(x) * (1 / 0)": "division by zero in '1 / 0'",
    "gate(x) / (2 - 2)": "division by zero in 'gate(x) / (2 - 2)'",
    "gate(x) * (0 - 2) ** 0.5": "expected real numbers of at most 3.4e+38, got '(0 - 2) ** 0.5'",
    "gate(x) * 0 ** -0.5": "expected real numbers of at most 3.4e+38, got",
    "gate(2) * x": "gate: expected x, an array or a value computed from them, got the number 2",
    "like(gate(x), 2 + 3)": "like: expected x, an array or a value computed from them, got the number 2 + 3",
    "gate(x) * 2[0:1]": "channels: expected x, an array or a value computed from them, got the number 2",
    "gate(x) @ 2": "@: expected two values of x or arrays, got the number 2",
    "concat(gate(x), weight)": "concat: 'weight' does not depend on x, so it has a batch of 1, unlike the other values",
    "stack(weight, gate(x))": "stack: 'weight' does not depend on x, so it has a batch of 1",
    "like(weight, gate(x))": "like: 'weight' does not depend on x",
    "like(gate(x), weight)": "like: 'weight' does not depend on x",
    "concat(gate(x), resize(weight, x))": "concat: 'resize(weight, x)' does not depend on x",
    "unfold(fold(gate(x), 2) * fold(weight, 2), 2)": "fold: 'weight' does not depend on x, so it has no batch to fold",
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
INVALID_GRAPHS = [
    ("concat(x)", {"concat": SIGMOID}, {}, "'concat' cannot be a name in it"),
    ("x * 2", {"0": SIGMOID}, {}, "'0' cannot be a name in it"),
    ("x * 2", {}, {"a": ((1,), 0.0)}, "does not use the array a"),
    ("x * a", {}, {"a": ((0,), 0.0)}, "arrays: a: 0.0: input should be greater than"),
    ("x * a", {}, {"a": ((1,), 1e39)}, "arrays: a: 1: input should be less than"),
    ("x * bn(a)", {"bn": norm(2)}, {"a": ((2, 1, 1), 1.0)}, "formula: bn: batch norm needs"),
    ("x * 2", {}, 3, "arrays: expected an object that maps names to"),
]
INVALID = [
    *((partial(graph, formula, gate=SIGMOID), f"graph: formula: {text}") for formula, text in INVALID_FORMULAS.items()),
    *((partial(Rearrange, pattern=one), f"rearrange: pattern: {text}") for one, text in INVALID_PATTERNS.items()),
    *((partial(Graph, formula=one, children=c, arrays=a), text) for one, c, a, text in INVALID_GRAPHS),
]


@pytest.mark.parametrize(("make", "message"), INVALID, ids=[message for _, message in INVALID])
def test_invalid(make, message):
    with pytest.raises(SpecError, match=escape(message)):
        make()


def test_deep_formulas_are_refused_in_every_version_of_python():
    for formula in ("-" * 1500 + "x", "x" + ".a" * 900, "x" + "[0:1]" * 399):
        with pytest.raises(SpecError, match=r"nested too deeply|expected expressions in the syntax of Python"):
            Graph(children={}, formula=formula)


LAYERS = [getattr(spec.layers, name) for name in spec.layers.__all__]
NUMBERS = [
    (composite, name)
    for composite in (*LAYERS, spec.maam_net)
    for name, one in plain_signature(composite).parameters.items()
    if "float" in str(one.annotation)
]


@pytest.mark.parametrize(("composite", "name"), NUMBERS, ids=lambda one: getattr(one, "__name__", one))
@pytest.mark.parametrize("value", [5e-324, 1e308, -1e308, 10**400])
def test_extreme_numbers_make_a_layer_or_a_spec_error(composite, name, value):
    required = [one for one in plain_signature(composite).parameters.values() if one.default is one.empty]
    with contextlib.suppress(SpecError):
        assert isinstance(composite(**{one.name: 64 for one in required} | {name: value}), spec.Node)


def test_eca_refuses_kernels_that_are_too_large():
    for options in ({"gamma": 5e-324}, {"beta": 1e308, "gamma": 1e-10}, {"gamma": 1e-8}):
        with pytest.raises(SpecError, match=r"^eca: gamma, beta: .*; increase gamma, or pass kernel_size$"):
            spec.eca(64, **options)
