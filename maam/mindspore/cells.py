"""The containers of `maam.spec` as one MindSpore cell: children under their canonical names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common import api
from mindspore.common.initializer import initializer
from mindspore.nn.layer.normalization import _BatchNorm
from mindspore.ops import constexpr

from maam import spec
from maam.backend.integrity import check_conforms, check_method
from maam.backend.layers import training_order
from maam.backend.reparameterize import fused_form, stays_trainable
from maam.errors import DeploymentError, MaamError, ShapeError, SpecError
from maam.mindspore.arrays import read_arrays, unwrap, write_arrays
from maam.mindspore.primitives import WITH_ARRAYS, WITHOUT_ARRAYS, initializer_of, resize, softmax
from maam.spec.inputs import InputRule, check_training_batch


class Constant:
    """An attribute whose value Python computes; a property would be compiled into the graph."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get__(self, cell: Any, owner: type) -> Any:
        return self if cell is None else self.function(cell)


def check_input(cell: Any, rule: InputRule, x: Any) -> None:
    """Refuse what `cell` cannot take; what is no tensor, but may become one in a graph, passes.

    Raises:
        ShapeError: what was given, and what was expected.
    """
    if isinstance(x, (np.ndarray, list, tuple, type(None))) or type(x).__module__.startswith("torch"):
        raise ShapeError(
            f"expected a mindspore.Tensor {rule.describe()}, got {type(x).__name__}; mindspore.Tensor makes one"
        )
    if not isinstance(x, Tensor):
        return
    rule.check(tuple(x.shape), dtype_name(x.dtype), expected_dtype(cell))
    if cell.training:
        check_training_batch(cell.spec, tuple(x.shape), lambda path: _normalises(cell, path))


def expected_dtype(cell: nn.Cell) -> str | None:
    """The dtype that the input must have; None where mixed precision chooses it, or there is no parameter."""
    return None if is_mixed(cell) or _strategy() is not None else _parameter_dtype(cell)


def is_mixed(cell: nn.Cell) -> bool:
    """Whether mixed precision has been applied to the cell itself."""
    return any(getattr(cell, name, False) for name in ("_amp_level", "fp16", "bf16"))


def dtype_name(dtype: Any) -> str:
    """MindSpore's dtype as NumPy names it."""
    return str(dtype).lower()


def _strategy() -> Any:
    """What mixed precision of level auto does here in PyNative mode; None where it is off."""
    return getattr(api, "get_curr_amp_strategy", lambda: None)()


def _parameter_dtype(cell: nn.Cell) -> str | None:
    for parameter in cell.get_parameters():
        return dtype_name(parameter.dtype)
    return None


def _normalises(cell: nn.Cell, path: str) -> bool:
    """Whether there is a batch norm in train mode, not one over several processes, where the spec has one."""
    for name in path.split("."):
        if (found := cell._cells.get(name)) is None:  # what holds it was replaced
            return False
        cell = unwrap(found)
    return isinstance(cell, _BatchNorm) and not isinstance(cell, nn.SyncBatchNorm) and cell.training


_SETTINGS = (
    *("in_channels", "out_channels", "kernel_size", "stride", "pad_mode", "padding", "dilation", "group", "has_bias"),
    *("num_features", "eps", "approximate", "function", "axes", "alpha"),
)
"""What a cell computes by; its repr has parameters besides, whose names change when a network takes it in."""


def check_cell(cell: nn.Cell, act: str, error: type[MaamError], skip: Sequence[str] = ()) -> None:
    """Refuse a cell of maam in which a layer was replaced, or its settings were changed; but for those in `skip`.

    Raises:
        error: naming the layer, what it was and what it is.
    """
    check_conforms(cell, _children, words, act, error, skip)


def check_construct(cell: nn.Cell, act: str, error: type[MaamError], *, root: bool = True) -> None:
    """Refuse a cell of maam (with `root`), or one that it holds, whose class is a user's with a construct of its own.

    Raises:
        error: naming the class.
    """
    check_method(cell, _children, "construct", act, error, root=root)


def check_names(names: Iterable[str], container: type[nn.Cell]) -> None:
    """Refuse names of layers that a container has for attributes of its own.

    Raises:
        SpecError: naming the layer.
    """
    plain = nn.SequentialCell()
    for name in names:
        if hasattr(plain, name) or hasattr(container, name):
            raise SpecError(f"layer name {name!r} is an attribute of a MindSpore cell; choose another")


def words(cell: nn.Cell) -> str:
    """What a layer computes by."""
    cell = unwrap(cell)
    settings = [f"{name}={getattr(cell, name)}" for name in _SETTINGS if name in vars(cell)]
    return f"{type(cell).__name__}({', '.join(settings)})"


def _children(cell: nn.Cell) -> Mapping[str, Any]:
    return {name: unwrap(inner) for name, inner in unwrap(cell)._cells.items()}


_FIXED = "the layers are those of the spec: a part is maam.mindspore.build(cell.spec.until(NAME))"


def instantiate(node: spec.Node, **options: Any) -> nn.Cell:
    """The cell of a node; the one option is `dtype`."""
    if type(node) in WITH_ARRAYS:
        return WITH_ARRAYS[type(node)](node, **options)
    if type(node) in WITHOUT_ARRAYS:
        return WITHOUT_ARRAYS[type(node)](node)
    if not isinstance(node, (spec.Sequential, spec.Parallel)):
        raise SpecError(f"maam.mindspore has no primitive of kind {node.kind!r}")
    return Container(node, **options)


@constexpr  # type: ignore[untyped-decorator]
def _check(shape: Any, dtype: Any, rule: Any, expected: Any) -> None:
    if None in shape[1:]:  # a dynamic graph: only a run knows the sizes
        return
    # A graph does not tell whether mixed precision is on, so a narrower dtype passes; float64 never comes of it.
    name = dtype_name(dtype)
    InputRule(*rule).check(tuple(shape), name, expected if name == "float64" else None)


class _Base(nn.SequentialCell):
    """What is not compiled into a graph.

    Apart from `Container`, because mixed precision of level O1 copies the source of that class into a module
    that has not the functions of this one.
    """

    rule: InputRule | None = None
    reparameterized = False
    _spec: Any

    @property
    def spec(self) -> Any:
        """The node, as the containers below now are."""
        below = {name: self._cells.get(name) for name in self._spec.nodes}
        changed = {n: c.spec for n, c in below.items() if isinstance(c, _Base) and c.spec is not self._spec.nodes[n]}
        if changed:
            self._spec = self._spec.with_nodes({**self._spec.nodes, **changed})
        return self._spec

    @spec.setter
    def spec(self, node: Any) -> None:
        """Who sets it answers for it: the layers are from now on taken for what it says."""
        self._spec = node
        self.built = {name: words(self._cells[name]) for name in node.nodes}

    def reparameterize(self) -> None:
        """Fuse for deployment, in place, as `maam.fuse` does; parameters are new ones, of the old dtype.

        Where there is nothing to fuse, nothing happens. A network in graph mode that contains this cell and has run
        keeps the graph that it compiled: call this before its first run. Of layers whose parameters were all frozen the
        new ones are too; hooks on layers inside are gone.

        Raises:
            DeploymentError: the cell is in train mode, was fused before, is wrapped for mixed precision, or has a layer
                that its spec does not say.
            WeightsError: a parameter holds NaN or infinity.
        """
        if is_mixed(self):
            raise DeploymentError("reparameterize: mixed precision has wrapped the cell; fuse first, then apply it")
        inner = self.rule is None and self.reparameterized
        if not inner:
            check_cell(self, "reparameterize", DeploymentError)
            check_construct(self, "reparameterize", DeploymentError, root=False)  # what is below is made anew
        found = None if inner else fused_form(self, read_arrays(self))
        if found is None:
            return
        name, parameter = next(iter(self.parameters_and_names()))
        prefix = parameter.name.removesuffix(name)  # what the network around puts before its names
        before = {name: parameter.requires_grad for name, parameter in self.parameters_and_names()}
        for name in (*self._spec.nodes, *(p.name for p in self._spec.own_parameters())):
            delattr(self, name)
        self._fill(found[0], dtype=parameter.dtype)
        self.update_parameters_name(prefix)
        write_arrays(self, found[1])
        for name, parameter in self.parameters_and_names():
            parameter.requires_grad = stays_trainable(before, name)
        self.set_train(False)
        self._forget_graph()
        self.reparameterized = True

    def pool_first(self) -> None:
        """Run a chain in `training_order` from now on, until a layer of it is replaced.

        For training loops of ours: hooks on a ReLU see the pooled map. The same outputs and gradients, bit for bit.
        """
        if self._spec.kind != "parallel":
            cells = [self._cells[name] for name in self.built]
            self.cell_list = training_order(cells, nn.ReLU, nn.MaxPool2d)

    def _refuse(self, *_: Any) -> None:
        raise SpecError(_FIXED)

    append = __delitem__ = _refuse

    def __setitem__(self, index: Any, cell: nn.Cell) -> None:
        super().__setitem__(index, cell)  # which mixed precision of level O1 calls
        self._forget_graph()

    def __getitem__(self, index: Any) -> nn.Cell:
        if isinstance(index, slice):
            raise SpecError(_FIXED)
        return super().__getitem__(index)

    def __len__(self) -> int:
        return len(self._spec.children)  # as in PyTorch: what weighs branches is none of them

    def _forget_graph(self) -> None:
        object.__setattr__(self, "_create_time", time.time_ns())  # by which graph mode finds what it compiled

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the input in Python, for the plain exception, before a graph is compiled or run."""
        if self.rule is not None and len(args) == 1:
            check_input(self, self.rule, args[0])
        return super().__call__(*args, **kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep `cell_list` to the node's cells: mixed precision fills it anew, and a subclass may have others.

        A layer that a user replaces is replaced there too, and what graph mode has compiled of this cell is forgotten;
        of a network around it, it is not.
        """
        super().__setattr__(name, value[: getattr(self, "_size", None)] if name == "cell_list" else value)
        if isinstance(value, nn.Cell) and name in getattr(self, "built", ()):
            self.cell_list = [self._cells[child] for child in self.built]
            self._forget_graph()

    expected_dtype = Constant(expected_dtype)


class Container(_Base):
    """A node that holds others; its construct runs the children and combines what they give.

    It is a SequentialCell because automatic mixed precision replaces the children of such a cell, and of no
    other that holds a list.

    Attributes:
        spec: the node.
        rule: what the input must be; None inside another container, which has checked already.
    """

    kind = ""

    def __init__(self, node: spec.Sequential | spec.Parallel, dtype: Any = mstype.float32) -> None:
        super().__init__()
        self._fill(node, dtype)

    def _fill(self, node: Any, dtype: Any) -> None:
        check_names(node.nodes, Container)
        self._size = len(node.nodes)
        for name, child in node.nodes.items():
            cell = instantiate(child, dtype=dtype)
            self.insert_child_to_cell(name, cell)
            cell.update_parameters_name(f"{name}.")
        for name in reversed(node.nodes):
            self._cells.move_to_end(name, last=False)  # before what a subclass has added
        self.cell_list = list(self._cells.values())
        self.spec = node
        self.kind = node.kind
        self._stride = getattr(node, "stride", 1)
        self._mode = getattr(node, "merge", "")
        self._weights = getattr(node, "weights", None)
        self._count = len(node.children)
        for parameter in node.own_parameters():
            initial = initializer(initializer_of(parameter), parameter.shape, dtype)
            setattr(self, parameter.name, Parameter(initial, name=parameter.name))

    def construct(self, x: Tensor) -> Tensor:
        """The node's function, as `maam.spec` defines it: (N, C, H, W) or (N, features) to the output's shape."""
        if self.rule is not None:
            _check(ops.shape(x), ops.dtype(x), self.rule, self.expected_dtype)
        if self.kind == "parallel":
            return self._merge(x)
        y = x
        for cell in self.cell_list:
            y = cell(y)
        if self.kind == "residual":
            return x + y
        if self.kind == "scale":
            return x * y
        if self.kind == "resize":
            return resize(y, x.shape[2] // self._stride, x.shape[3] // self._stride)
        return y

    def _merge(self, x: Tensor) -> Tensor:
        outputs = ()
        for index in range(self._count):
            outputs = outputs + (self.cell_list[index](x),)
        if self._mode == "concat":
            return ops.cat(outputs, 1)  # (N, C1 + C2 + ..., H, W)
        if self._mode == "stack":
            return ops.cat(outputs, 2)  # (N, C, H1 + H2 + ..., W)
        if self._mode != "sum":
            outputs = self._weighted(x, outputs)
        total = outputs[0]
        for index in range(1, self._count):
            total = total + outputs[index]
        return total

    def _weighted(self, x: Tensor, outputs: Any) -> Any:
        """Each branch times its weight: a number, a scalar tensor, or a tensor (N, 1, ..., 1)."""
        weights = self._weights
        if self._mode == "softmax":
            weights = ops.cast(softmax(self.alpha, 0), outputs[0].dtype)
        if self._mode == "dynamic":
            values = ops.cast(self.cell_list[self._count](x), outputs[0].dtype)  # (N, branches)
            ones = (1,) * (len(outputs[0].shape) - 1)
            weights = values.transpose(1, 0).reshape((self._count, -1) + ones)  # (branches, N, 1, ..., 1)
        terms = ()
        for index in range(self._count):
            terms = terms + (weights[index] * outputs[index],)
        return terms

    def __repr__(self) -> str:
        name = type(self.spec).__name__ if type(self) is Container else type(self).__name__
        return f"{name}{super().__repr__().removeprefix(type(self).__name__)}"

    def extend_repr(self) -> str:
        """How the branches are merged, where there are branches."""
        return f"merge={self._mode!r}" if self.kind == "parallel" else ""
