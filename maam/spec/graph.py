"""Graphs: layers whose computation is a short formula of child layers and learnable arrays."""

from __future__ import annotations

import ast
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NamedTuple

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from maam._messages import shortened
from maam.errors import ShapeError
from maam.spec.containers import broadcast_shape, joined_shape
from maam.spec.fields import FrozenDict, Ordered, Real, Shape, Size, describe
from maam.spec.node import Children, Node, check_name, shape_below
from maam.spec.parameters import Init, Parameter, Role
from maam.spec.pooling import GlobalPool
from maam.spec.primitives import BatchNorm2d, feature_map

MAX_FORMULA = 2000
MAX_LEVELS = 200
"""The largest depth of a formula's syntax tree, far below the recursion limit of Python."""
MAX_NUMBER = 3.4028234e38
"""The largest number of formulas and arrays, that of float32."""
_MAX_INTEGER = 2**53
"""The largest integer that stays one; frameworks convert integers to int64."""
_OPERATORS: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.MatMult: "matmul",
}
_EXPONENTS = {2: "square", 0.5: "sqrt", -0.5: "rsqrt"}
_ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "square": lambda a: a * a,
    "sqrt": lambda a: a**0.5,
    "rsqrt": lambda a: a**-0.5,
}
"""The operations that numbers have, too."""
_FUNCTIONS = {"concat": None, "stack": None, "like": 2, "resize": 2, "first": 2, "last": 2, "fold": 1, "unfold": 1}
"""The functions of formulas with their numbers of values; None for any number. fold and unfold also take a number."""


class Step(NamedTuple):
    """One operation of a formula.

    Attributes:
        op: "call" (a child), "number", "add", "sub", "mul", "div", "matmul", "square", "sqrt", "rsqrt",
            "channels" (a slice), or a function of formulas. Operations on numbers alone become "number".
        values: the operands as indices. Index 0 is the input; then come the arrays, then the results of earlier steps.
        name: the child of "call".
        numbers: the constants of "number", "channels", "fold" and "unfold".
        folds: the number of groups that are folded into the batch in the result; 0 if the result does not depend on x,
            so that it has a batch of 1.
    """

    op: str
    values: tuple[int, ...]
    name: str = ""
    numbers: tuple[float, ...] = ()
    folds: int = 1


class FreeArray(NamedTuple):
    """A learnable array of a graph: its shape without batch, and the value that it starts with."""

    shape: Annotated[tuple[Size, ...], Ordered]
    value: Annotated[Real, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]


def _parse_arrays(value: Any) -> FrozenDict:
    if not isinstance(value, Mapping):
        raise ValueError(f"expected an object that maps names to (shape, value), got {type(value).__name__}")
    arrays: dict[str, FreeArray] = {}
    for name, array in value.items():
        try:
            arrays[str(name)] = TypeAdapter(FreeArray).validate_python(array)
        except ValidationError as error:
            raise ValueError(f"{name}: {describe(error)}") from None
    return FrozenDict(arrays)


if TYPE_CHECKING:
    FreeArrays = Mapping[str, tuple[tuple[int, ...], float]]
else:
    FreeArrays = Annotated[FrozenDict, BeforeValidator(_parse_arrays)]


class Graph(Node):
    """Layer that computes a formula of its input x, its child layers and its learnable arrays.

    The formula is one or more assignments and a last expression, in the syntax of Python, separated by semicolons:
    `g = gate(conv(pool(x))); x * g`. Every child is called once. Allowed are:

    - numbers, + - * /, `@` (matrix product of the last two axes), `** 2`, `** 0.5` and `** -0.5`. Sizes of 1 broadcast.
    - `a[i:j]`: the channels i to j.
    - `concat(a, b, ...)`, `stack(a, b, ...)`: concatenation along the channels, or along the height.
    - `like(a, b)`: a in the shape of b, which has as many values, in row-major order.
    - `resize(a, b)`: a, resized to the height and width of b as by `Resize`.
    - `first(a, b)`, `last(a, b)`: the first or last rows of a, as many as b has.
    - `fold(a, g)`: g groups of channels as separate samples, (N, g * C, H, W) to (N * g, C, H, W), so that the layers
      that follow treat all groups alike; `unfold(a, g)` is the inverse.

    Arrays, and values computed from arrays alone, have a batch of 1. They broadcast in + - * / and @, but `concat`,
    `stack` and `like` cannot combine them with values of x, and they cannot be folded.

    Args:
        children: the layers by name.
        formula: the formula.
        arrays: learnable arrays by name, each (shape, value): its shape without batch, and the value that it starts
            with. In the parameters it has a first axis of size 1.
        in_channels: the required number of channels of x; None for any.

    Raises:
        SpecError: the formula is not valid, or does not call every child once and use every array, or combines arrays
            with x as if they had its batch, or a number in it is not finite.

    Example:
        >>> from maam import spec
        >>> layer = spec.Graph(
        ...     children={"mean": spec.GlobalPool(), "gate": spec.Activation(function="sigmoid")},
        ...     formula="x * gate(weight * mean(x) + 0.5)",
        ...     arrays={"weight": ((8, 1, 1), 1.0)},
        ... )
        >>> layer.output_shape((8, 32, 32)), layer.num_parameters
        ((8, 32, 32), 8)
    """

    kind: ClassVar[str] = "graph"
    children: Children
    formula: Annotated[str, Field(max_length=MAX_FORMULA)]
    arrays: FreeArrays = FrozenDict()
    in_channels: Size | None = None

    @model_validator(mode="after")
    def _formula_is_valid(self) -> Graph:
        for name in self.arrays:
            check_name(name) if name not in ("weight", "bias", "alpha") else name
        steps = self.steps
        called = [step.name for step in steps if step.op == "call"]
        if missing := [name for name in self.children if called.count(name) != 1]:
            raise ValueError(
                f"formula: expected one call of every child, got {called.count(missing[0])} of {missing[0]}"
            )
        used = {index for step in steps for index in step.values}
        if unused := [name for index, name in enumerate(self.arrays, 1) if index not in used]:
            raise ValueError(f"formula: does not use the array {unused[0]}")
        for step in steps:
            if step.op == "call" and not step.folds and _normalizes(self.children[step.name]):
                raise ValueError(
                    f"formula: {step.name}: batch norm needs a batch, but its input does not depend on x; call the "
                    "layer on a value computed from x"
                )
        if steps and steps[-1].folds != 1:
            raise ValueError("formula: expected a result with one map for each map of x (unfold what was folded)")
        return self

    @property
    def steps(self) -> tuple[Step, ...]:
        """The operations of the formula, in order; the last one computes the output."""
        return compile_formula(self.formula, tuple(self.children), tuple(self.arrays))

    @property
    def computes_wide(self) -> bool:
        """Whether backends compute the formula in float32 if the input is float16, because squares or sums overflow it.

        A graph whose children have parameters does not, because they compute in the dtype of their parameters.
        """
        inner = [node for child in self.children.values() for _, node in child.walk()]
        squares = any(step.op == "square" for step in self.steps)
        sums = any(isinstance(node, GlobalPool) and node.function == "sum" for node in inner)
        return (squares or sums) and not any(node.own_parameters() for node in inner)

    @property
    def nodes(self) -> dict[str, Node]:
        """The children by name."""
        return dict(self.children)

    def with_nodes(self, nodes: Mapping[str, Node]) -> Graph:
        """Return the graph with other children."""
        return self.replace(children=nodes)

    @property
    def in_channels_expected(self) -> int | None:
        """The required number of channels; if it is not set, that of the first child that has one."""
        return super().in_channels_expected if self.in_channels is None else self.in_channels

    def value_shapes(self, input_shape: Shape) -> list[Shape]:
        """Return the shapes of all values: the input, the arrays, and the result of each step; () for a number."""
        if self.in_channels is not None and input_shape[:1] != (self.in_channels,):
            raise ShapeError(f"expected {self.in_channels} channels, got shape {input_shape}")
        shapes = [input_shape, *(tuple(shape) for shape, _ in self.arrays.values())]
        for step in self.steps:
            given = [shapes[index] for index in step.values]
            if step.op == "call":
                shapes.append(shape_below(step.name, self.children[step.name], given[0]))
            else:
                shapes.append(_result_shape(step, given))
        return shapes

    def child_shapes(self, input_shape: Shape) -> Iterator[tuple[str, Node, Shape]]:
        """Yield each child with its input shape, in the order of execution."""
        shapes = self.value_shapes(input_shape)
        for step in self.steps:
            if step.op == "call":
                yield step.name, self.children[step.name], shapes[step.values[0]]

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the last expression."""
        return self.value_shapes(input_shape)[-1]

    def own_parameters(self) -> tuple[Parameter, ...]:
        """Return the arrays, each with a first axis of size 1."""
        return tuple(
            Parameter(name, (1, *shape), Role.FREE, Init("constant", value))
            for name, (shape, value) in self.arrays.items()
        )

    def own_macs(self, input_shape: Shape) -> int:
        """Return the MACs of the matrix products, and those of children for all folded groups but the first."""
        shapes, total = self.value_shapes(input_shape), 0
        for step, shape in zip(self.steps, shapes[1 + len(self.arrays) :], strict=True):
            if step.op == "matmul":
                total += math.prod(shape) * shapes[step.values[0]][-1] * step.folds
            elif step.op == "call":
                total += (step.folds - 1) * self.children[step.name].macs(shapes[step.values[0]])
        return total


def _normalizes(node: Node) -> bool:
    return any(isinstance(inner, BatchNorm2d) for _, inner in node.walk())


def _result_shape(step: Step, given: Sequence[Shape]) -> Shape:
    """Return the shape of the result of a step that is not a call, from the shapes of its values."""
    first = given[0] if given else ()
    if step.op in ("concat", "stack"):
        return joined_shape(list(given), 0 if step.op == "concat" else 1)
    if step.op in ("like", "resize", "first", "last"):
        return _shape_by_another(step.op, first, given[1])
    if step.op in ("channels", "fold", "unfold"):
        return _shape_of_channels(step, first)
    if step.op == "matmul":
        return _shape_of_product(*given)
    maps = [shape for shape in given if shape]
    if len({len(shape) for shape in maps}) > 1:
        raise ShapeError(f"values of shapes {', '.join(map(str, maps))} cannot be combined")
    return broadcast_shape(maps) if maps else ()


def _shape_by_another(op: str, shape: Shape, other: Shape) -> Shape:
    if op == "like":
        if math.prod(shape) != math.prod(other):
            raise ShapeError(f"a value of shape {shape} cannot have shape {other}: the number of values differs")
        return other
    if op == "resize":
        channels, *_ = feature_map(shape)
        return (channels, *feature_map(other)[1:])
    if min(len(shape), len(other)) < 2 or shape[1] < other[1]:
        raise ShapeError(f"a value of shape {shape} has fewer rows than one of shape {other}")
    return (shape[0], other[1], *shape[2:])


def _shape_of_channels(step: Step, shape: Shape) -> Shape:
    numbers = [int(number) for number in step.numbers]
    if not shape:
        raise ShapeError(f"{step.op}: expected a map, got a number")
    if step.op == "unfold":
        return (shape[0] * numbers[0], *shape[1:])
    if step.op == "fold":
        if shape[0] % numbers[0]:
            raise ShapeError(f"{numbers[0]} groups do not divide {shape[0]} channels")
        return (shape[0] // numbers[0], *shape[1:])
    if shape[0] < numbers[1]:
        raise ShapeError(f"expected at least {numbers[1]} channels, got shape {shape}")
    return (numbers[1] - numbers[0], *shape[1:])


def _shape_of_product(left: Shape, right: Shape) -> Shape:
    if len(left) != len(right) or len(left) < 2 or left[-1] != right[-2] or left[:-2] != right[:-2]:
        raise ShapeError(f"a matrix product of shapes {left} and {right} does not exist")
    return (*left[:-1], right[-1])


@functools.lru_cache(maxsize=1024)
def compile_formula(formula: str, children: tuple[str, ...], arrays: tuple[str, ...]) -> tuple[Step, ...]:
    """Return the operations of a formula, in order.

    Args:
        formula: the formula.
        children: the names that it can call.
        arrays: the names of the arrays.

    Raises:
        ValueError: the formula is not valid.
    """
    for name in (*children, *arrays):
        if not name.isidentifier() or name == "x" or name in _FUNCTIONS:
            raise ValueError(
                f"formula: {name!r} cannot be a name in it; expected an identifier other than x, "
                f"{', '.join(_FUNCTIONS)}"
            )
    try:
        tree = ast.parse(formula)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"formula: expected expressions in the syntax of Python, got {formula[:60]!r}") from None
    if _levels(tree) > MAX_LEVELS:
        raise ValueError(
            f"formula: nested too deeply: expected at most {MAX_LEVELS} levels; assign parts of it to names"
        )
    body = tree.body
    if not body or not isinstance(body[-1], ast.Expr):
        raise ValueError("formula: expected an expression at the end")
    compiler = _Compiler(children, arrays)
    for statement in body[:-1]:
        compiler.assign(statement)
    if compiler.value(body[-1].value) != len(compiler.folds) - 1 or not compiler.steps:
        raise ValueError("formula: expected an operation at the end, such as `x * gate`")
    return tuple(compiler.steps)


def _levels(tree: ast.AST) -> int:
    """Return the depth of a syntax tree."""
    count, level = 0, [tree]
    while level:
        count, level = count + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return count


class _Compiler:
    """Translator of syntax trees into steps."""

    def __init__(self, children: Sequence[str], arrays: Sequence[str]) -> None:
        self.children = children
        self.names = {name: index for index, name in enumerate(("x", *arrays))}
        self.folds = [1] + [0] * len(arrays)
        self.numbers: dict[int, int | float] = {}
        self.steps: list[Step] = []

    def assign(self, statement: ast.stmt) -> None:
        """Add the steps of an assignment."""
        target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
        if not isinstance(statement, ast.Assign) or not isinstance(target, ast.Name):
            raise ValueError(f"formula: expected `name = expression`, got {ast.unparse(statement)[:60]!r}")
        if target.id in self.names or target.id in self.children or target.id in _FUNCTIONS:
            raise ValueError(f"formula: the name {target.id!r} is already used")
        self.names[target.id] = self.value(statement.value)

    def value(self, tree: ast.expr) -> int:
        """Add the steps of an expression and return the index of its value."""
        if isinstance(tree, ast.Name) and tree.id in self.names:
            return self.names[tree.id]
        if (number := _number(tree)) is not None:
            return self._add_number(number)
        if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
            return self._add_arithmetic("mul", (self._add_number(-1), self.value(tree.operand)), tree)
        if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATORS:
            return self._add_arithmetic(
                _OPERATORS[type(tree.op)], (self.value(tree.left), self.value(tree.right)), tree
            )
        power = (
            isinstance(tree, ast.BinOp) and isinstance(tree.op, ast.Pow) and _EXPONENTS.get(_number(tree.right) or 0)
        )
        if isinstance(tree, ast.BinOp) and power:
            return self._add_arithmetic(power, (self.value(tree.left),), tree)
        if isinstance(tree, ast.Subscript) and isinstance(tree.slice, ast.Slice) and tree.slice.step is None:
            return self._channels(tree.value, tree.slice)
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
            return self._call(tree.func.id, tree.args)
        raise ValueError(f"formula: unknown name or operation {ast.unparse(tree)[:60]!r}")

    def _channels(self, tree: ast.expr, bounds: ast.Slice) -> int:
        ends = [_number(end) for end in (bounds.lower, bounds.upper)]
        if not (isinstance(ends[0], int) and isinstance(ends[1], int) and 0 <= ends[0] < ends[1]):
            raise ValueError(f"formula: expected channels [i:j] with 0 <= i < j, got [{ast.unparse(bounds)[:60]}]")
        value = self.value(tree)
        self._refuse_numbers("channels", (tree,), (value,))
        return self._add("channels", (value,), numbers=(ends[0], ends[1]))

    def _call(self, name: str, arguments: Sequence[ast.expr]) -> int:
        if name in self.children:
            if len(arguments) != 1:
                raise ValueError(f"formula: {name}: expected one value, got {len(arguments)}")
            value = self.value(arguments[0])
            self._refuse_numbers(name, arguments, (value,))
            return self._add("call", (value,), name)
        if name not in _FUNCTIONS:
            known = ", ".join((*self.children, *_FUNCTIONS))
            raise ValueError(f"formula: no layer or function {name[:60]!r}; expected one of {known}")
        expected = _FUNCTIONS[name]
        numbers: tuple[int, ...] = ()
        if name in ("fold", "unfold") and len(arguments) == 2:
            groups = _number(arguments[1])
            numbers = (groups,) if isinstance(groups, int) and groups > 0 else ()
            arguments = arguments[:1]
        if len(arguments) != (expected or max(len(arguments), 1)) or (expected == 1) != bool(numbers):
            number = " and the number of groups" if expected == 1 else ""
            raise ValueError(f"formula: {name}: expected {expected or 'one or more'} value(s){number}")
        values = tuple(self.value(argument) for argument in arguments)
        self._refuse_numbers(name, arguments, values)
        self._check_batches(name, arguments, values)
        return self._add(name, values, numbers=numbers)

    def _refuse_numbers(self, name: str, arguments: Sequence[ast.expr], values: Sequence[int]) -> None:
        for argument, index in zip(arguments, values, strict=True):
            if index in self.numbers:
                raise ValueError(
                    f"formula: {name}: expected x, an array or a value computed from them, got the number "
                    f"{ast.unparse(argument)[:60]}"
                )

    def _check_batches(self, name: str, arguments: Sequence[ast.expr], values: Sequence[int]) -> None:
        """Raise ValueError if the function needs the batch of x, and a value, which has only arrays, lacks it."""
        fixed = [ast.unparse(tree)[:60] for tree, index in zip(arguments, values, strict=True) if not self.folds[index]]
        if name == "fold" and fixed:
            raise ValueError(
                f"formula: fold: {fixed[0]!r} does not depend on x, so it has no batch to fold groups into; give the "
                "array the shape of one group"
            )
        if name in ("concat", "stack", "like") and 0 < len(fixed) < len(values):
            raise ValueError(
                f"formula: {name}: {fixed[0]!r} does not depend on x, so it has a batch of 1, unlike the other values; "
                f"add zeros with the batch of x to it, as in `{fixed[0]} + 0 * x`"
            )

    def _add_number(self, value: int | float) -> int:
        """Add a number. Large integers become floating point."""
        index = self._add("number", (), numbers=(value if abs(value) <= _MAX_INTEGER else float(value),))
        self.numbers[index] = value
        return index

    def _add_arithmetic(self, op: str, values: tuple[int, ...], tree: ast.expr) -> int:
        """Add an operation that numbers have, too; compute it here if all its values are numbers."""
        given = [self.numbers[index] for index in values if index in self.numbers]
        if op == "matmul":
            if given:
                raise ValueError(f"formula: @: expected two values of x or arrays, got the number {given[0]}")
            return self._add(op, values)
        if op == "div" and self.numbers.get(values[1]) == 0:
            raise ValueError(f"formula: division by zero in {ast.unparse(tree)[:60]!r}")
        if len(given) < len(values):
            return self._add(op, values)
        try:
            number = _ARITHMETIC[op](*given)
        except ArithmeticError:  # overflow, or the power -0.5 of zero
            number = math.inf
        if isinstance(number, complex) or not abs(number) <= MAX_NUMBER:
            raise ValueError(
                f"formula: expected real numbers of at most {MAX_NUMBER:.2g}, got {ast.unparse(tree)[:60]!r}"
            )
        return self._add_number(number)

    def _add(self, op: str, values: tuple[int, ...], name: str = "", numbers: tuple[float, ...] = ()) -> int:
        given = {self.folds[index] for index in values} - {0}
        if len(given) > 1:
            raise ValueError(f"formula: {op}: one value has groups folded into the batch, another one has not")
        folds = given.pop() if given else 0
        if op in ("resize", "first", "last"):  # the second value gives a size only
            folds = self.folds[values[0]]
        if op == "fold":
            folds *= int(numbers[0])
        if op == "unfold":
            if not folds or folds % numbers[0]:
                raise ValueError(f"formula: unfold: {numbers[0]} groups were not folded before")
            folds //= int(numbers[0])
        self.steps.append(Step(op, values, name, numbers, folds))
        self.folds.append(folds)
        return len(self.folds) - 1


def _number(tree: ast.expr | None) -> int | float | None:
    """Return the value of a constant, or None for another expression.

    Raises:
        ValueError: the number is too large for float32.
    """
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        value = _number(tree.operand)
        return None if value is None else -value
    constant: Any = tree.value if isinstance(tree, ast.Constant) else None
    if not isinstance(constant, (int, float)) or isinstance(constant, bool):
        return None
    if abs(constant) > MAX_NUMBER:
        raise ValueError(f"formula: expected numbers of at most {MAX_NUMBER:.2g}, got {shortened(constant)}")
    return constant
