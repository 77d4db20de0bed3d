"""Cells made from a spec: containers with their children under canonical names, and the base of the layer classes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from mindspore import Tensor, nn, ops
from mindspore import dtype as mstype
from mindspore.common import api
from mindspore.nn.layer.normalization import _BatchNorm
from mindspore.ops import constexpr

from maam import spec
from maam.backend.integrity import SpecContainer
from maam.backend.layers import CompositeLayer, bind_arguments, training_order
from maam.backend.reparameterize import fused_form, stays_trainable
from maam.errors import DeploymentError, ShapeError, SpecError
from maam.mindspore.arrays import read_arrays, unwrap, write_arrays
from maam.mindspore.primitives import (
    ACTIVATIONS,
    NORMS,
    WITH_ARRAYS,
    WITHOUT_ARRAYS,
    add_parameters,
    convert,
    operate,
    resize,
    softmax,
)
from maam.spec.inputs import InputRule, check_training_batch

_FIXED = "the spec determines the layers; to get a part of the model: maam.mindspore.build(cell.spec.until(NAME))"
_SETTINGS = (
    *("in_channels", "out_channels", "kernel_size", "stride", "pad_mode", "padding", "dilation", "group", "has_bias"),
    *("num_features", "eps", "approximate", "function", "axes", "alpha", "num_groups", "output_size", "k", "pattern"),
)
"""The settings that determine what a cell computes. A repr would also show parameters, whose names can change."""


def instantiate(node: spec.Node, **options: Any) -> nn.Cell:
    """Return the cell of a node, without checks of its input; the only option is `dtype`."""
    if type(node) in WITH_ARRAYS:
        cell = WITH_ARRAYS[type(node)](node)
        for parameter in cell.get_parameters():
            convert(parameter, options.get("dtype", mstype.float32))
        return cell
    if type(node) in WITHOUT_ARRAYS:
        return WITHOUT_ARRAYS[type(node)](node)
    if not isinstance(node, (spec.Sequential, spec.Parallel, spec.Graph)):
        raise SpecError(f"maam.mindspore has no primitive of kind {node.kind!r}; expected the layers of maam.spec")
    return Container(node, **options)


# --- the check of inputs


def check_input(cell: Any, rule: InputRule, x: Any) -> None:
    """Raise ShapeError unless a cell accepts an input.

    Args:
        cell: a cell with the attributes `spec` and `training`.
        rule: the rule of its spec.
        x: the input; objects that may become a tensor in a graph pass.
    """
    if isinstance(x, (np.ndarray, list, tuple, type(None))) or type(x).__module__.startswith("torch"):
        raise ShapeError(
            f"expected a mindspore.Tensor {rule.describe()}, got {type(x).__name__}; convert it with mindspore.Tensor"
        )
    if not isinstance(x, Tensor):
        return
    rule.check(tuple(x.shape), dtype_name(x.dtype), expected_dtype(cell))
    if cell.training:
        check_training_batch(cell.spec, tuple(x.shape), lambda path: _normalizes(cell, path))


@constexpr  # type: ignore[untyped-decorator]
def _check_in_graph(shape: Any, dtype: Any, rule: Any, expected: Any) -> None:
    if None in shape[1:]:  # a dynamic graph: the sizes are known when it runs
        return
    # A graph does not know whether mixed precision is on, so a narrower dtype passes; float64 never comes from it.
    name = dtype_name(dtype)
    InputRule(*rule).check(tuple(shape), name, expected if name == "float64" else None)


def expected_dtype(cell: nn.Cell) -> str | None:
    """Return the dtype that the input must have; None if mixed precision chooses it or there is no parameter."""
    if is_mixed(cell) or getattr(api, "get_curr_amp_strategy", lambda: None)() is not None:  # level "auto" in PyNative
        return None
    return next((dtype_name(parameter.dtype) for parameter in cell.get_parameters()), None)


def is_mixed(cell: nn.Cell) -> bool:
    """Return whether mixed precision was applied to the cell itself."""
    return any(getattr(cell, name, False) for name in ("_amp_level", "fp16", "bf16"))


def dtype_name(dtype: Any) -> str:
    """Return NumPy's name of a MindSpore dtype."""
    return str(dtype).lower()


def _normalizes(cell: nn.Cell, path: str) -> bool:
    """Return whether the layer at a path of the spec is a batch norm in train mode over the batch of one process."""
    for name in path.split("."):
        if (found := cell._cells.get(name)) is None:  # the layer around it was replaced
            return False
        cell = unwrap(found)
    return isinstance(cell, _BatchNorm) and not isinstance(cell, nn.SyncBatchNorm) and cell.training


# --- containers


class _Constant:
    """An attribute whose value Python computes; graph mode would compile a property into the graph."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __get__(self, cell: Any, owner: type) -> Any:
        return self if cell is None else self.function(cell)


class _Base(SpecContainer, nn.SequentialCell):
    """The part of `Container` that is not compiled into a graph.

    It is a separate class, because mixed precision of level O1 copies the source of `Container` into another module,
    where the functions of this module are not defined. MindSpore 2.10 also copies the source of functions such as
    `ops.cast`, with imports that fail, so `Container` and what it calls use primitives, such as `ops.Cast()`.
    """

    rule: InputRule | None = None
    reparameterized = False
    expected_dtype = _Constant(expected_dtype)
    _method = "construct"

    # --- the spec and its layers

    def _layers(self) -> Mapping[str, Any]:
        return {name: unwrap(inner) for name, inner in self._cells.items()}

    def _fingerprint(self, layer: nn.Cell) -> str:
        layer = unwrap(layer)
        settings = [f"{name}={getattr(layer, name)}" for name in _SETTINGS if name in vars(layer)]
        return f"{type(layer).__name__}({', '.join(settings)})"

    def _refuse(self, *_: Any) -> None:
        raise SpecError(_FIXED)

    append = __delitem__ = _refuse

    def __setitem__(self, index: Any, cell: nn.Cell) -> None:
        super().__setitem__(index, cell)  # mixed precision of level O1 calls it
        self._forget_graph()

    def __getitem__(self, index: Any) -> nn.Cell:
        if isinstance(index, slice):
            raise SpecError(_FIXED)
        return super().__getitem__(index)

    def __len__(self) -> int:
        return len(self._spec.children)  # without the layer that weights the branches, as in PyTorch

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a replaced layer is also replaced in `cell_list`, and the compiled graph is dropped.

        `cell_list` is cut to the node's cells: mixed precision fills it again, and a subclass may have other cells. A
        graph that a network around this cell has compiled is not dropped.
        """
        super().__setattr__(name, value[: getattr(self, "_size", None)] if name == "cell_list" else value)
        if isinstance(value, nn.Cell) and name in getattr(self, "built", ()):
            self.cell_list = [self._cells[child] for child in self.built]
            self._forget_graph()

    def _forget_graph(self) -> None:
        object.__setattr__(self, "_create_time", time.time_ns())  # graph mode finds compiled graphs by it

    def recompute(self, **options: Any) -> None:
        """Recompute the layers in the backward pass, as `nn.Cell.recompute`; running statistics are updated once.

        Graph mode keeps the outputs of batch norm instead of recomputing them. In PyNative mode, call this method of
        the model or layer of maam: MindSpore's own method of a cell around it updates the statistics twice.

        Args:
            options: options of `nn.Cell.recompute`, except `use_reentrant=False` and `output_recompute=True`.

        Raises:
            SpecError: MindSpore would update the statistics twice with these options.
        """
        if not options.get("use_reentrant", True) or options.get("output_recompute", False):
            raise SpecError(
                "recompute: use_reentrant=False and output_recompute=True would update running statistics twice; "
                "omit them"
            )
        super().recompute(**options)
        gradient = self._recompute_cell.grad

        def once(*arguments: Any) -> Any:
            run = gradient(*arguments)

            def recomputed(*inputs: Any, **keywords: Any) -> Any:
                statistics = [parameter for parameter in self.get_parameters() if not parameter.requires_grad]
                kept = [parameter.value().copy() for parameter in statistics]
                found = run(*inputs, **keywords)
                for parameter, value in zip(statistics, kept, strict=True):
                    parameter.copy_(value)
                return found

            return recomputed

        self._recompute_cell.grad = once

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Check the input in Python before a graph is compiled or run, so that MindSpore does not wrap the error."""
        if self.rule is not None and len(args) == 1:
            check_input(self, self.rule, args[0])
        return super().__call__(*args, **kwargs)

    def __repr__(self) -> str:
        name = type(self.spec).__name__ if type(self) is Container else type(self).__name__
        return f"{name}{super().__repr__().removeprefix(type(self).__name__)}"

    # --- changes in place

    def pool_first(self) -> None:
        """Use `training_order` from now on, as the training loop does, until a layer is replaced.

        Outputs and gradients stay the same bit for bit; hooks on a ReLU see the pooled map.
        """
        if self._spec.kind not in ("parallel", "graph"):
            cells = [self._cells[name] for name in self.built]
            self.cell_list = training_order(cells, nn.ReLU, nn.MaxPool2d)

    def reparameterize(self) -> None:
        """Fuse the cell for deployment, in place, as `maam.fuse` does; nothing happens if there is nothing to fuse.

        The new parameters have the dtype of the old ones. A parameter is frozen if all old parameters of its layer were
        frozen. Hooks on layers inside are lost. If a network in graph mode contains the cell, call this method before
        the first run of the network, because the network keeps its compiled graph.

        Raises:
            DeploymentError: the cell is in train mode, is already fused, is wrapped for mixed precision, or has a layer
                that differs from its spec.
            WeightsError: a parameter holds NaN or infinity.
        """
        if is_mixed(self):
            raise DeploymentError(
                "reparameterize: mixed precision has wrapped the cell; fuse the cell first, then apply mixed precision"
            )
        found = fused_form(self, read_arrays)
        if found is None:
            return
        name, parameter = next(iter(self.parameters_and_names()))
        prefix = parameter.name.removesuffix(name)  # a network that contains the cell adds it to the names
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


class Container(_Base):
    """Cell of a node with children: `construct` runs the children and combines their outputs.

    It is a SequentialCell, because automatic mixed precision does not replace the children of other cells with a list.

    Attributes:
        spec: the node, with the present nodes of the containers inside.
        rule: the check of the input; None in a container inside another one.
        reparameterized: whether it was fused for deployment.
    """

    kind = ""

    def __init__(self, node: spec.Sequential | spec.Parallel | spec.Graph, dtype: Any = mstype.float32) -> None:
        super().__init__()
        self._fill(node, dtype)

    def _fill(self, node: Any, dtype: Any) -> None:
        plain = nn.SequentialCell()
        for name in (*node.nodes, *getattr(node, "arrays", ())):
            if hasattr(plain, name) or hasattr(Container, name):
                raise SpecError(f"layer name {name!r} is an attribute of a MindSpore cell; choose another")
        self._size = len(node.nodes)
        for name, child in node.nodes.items():
            cell = instantiate(child, dtype=dtype)
            self.insert_child_to_cell(name, cell)
            cell.update_parameters_name(f"{name}.")
        for name in reversed(node.nodes):
            self._cells.move_to_end(name, last=False)  # before the cells of a subclass
        self.cell_list = list(self._cells.values())
        self.spec = node
        self.kind = node.kind
        self._stride = getattr(node, "stride", 1)
        self._mode = getattr(node, "merge", "")
        self._weights = getattr(node, "weights", None)
        self._count = len(node.children)
        self._array_names = tuple(getattr(node, "arrays", ()))
        self._wide = getattr(node, "computes_wide", False)
        self._program = _plain_steps(node) if isinstance(node, spec.Graph) else ()
        add_parameters(self, node.own_parameters())
        for parameter in node.own_parameters():
            convert(getattr(self, parameter.name), dtype)

    def construct(self, x: Tensor) -> Tensor:
        """Return the output for x, (N, C, H, W) or (N, features), as `maam.spec` defines it."""
        if self.rule is not None:
            _check_in_graph(x.shape, x.dtype, self.rule, self.expected_dtype)
        if self.kind == "parallel":
            return self._merge(x)
        if self.kind == "graph":
            return self._compute(x)
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

    def _compute(self, x: Tensor) -> Tensor:
        """Return the result of the formula of a graph."""
        wide = self._wide and x.dtype == mstype.float16
        values = (ops.cast(x, mstype.float32) if wide else x,)
        for name in self._array_names:
            array = getattr(self, name)
            values = values + (ops.cast(array, mstype.float32) if wide else array,)
        for op, given, cell, numbers in self._program:
            operands = ()
            for index in given:
                operands = operands + (values[index],)
            if op == "call":
                values = values + (self.cell_list[cell](operands[0]),)
            else:
                values = values + (operate(op, operands, numbers),)
        return ops.cast(values[-1], x.dtype) if wide else values[-1]

    def _merge(self, x: Tensor) -> Tensor:
        outputs = ()
        for index in range(self._count):
            outputs = outputs + (self.cell_list[index](x),)
        if self._mode == "concat":
            return ops.Concat(1)(outputs)  # (N, C1 + C2 + ..., H, W)
        if self._mode == "stack":
            return ops.Concat(2)(outputs)  # (N, C, H1 + H2 + ..., W)
        if self._mode != "sum":
            outputs = self._weighted(x, outputs)
        total = outputs[0]
        for index in range(1, self._count):
            total = total + outputs[index]
        return total

    def _weighted(self, x: Tensor, outputs: Any) -> Any:
        """Return each branch times its weight: a number, a scalar tensor, or a tensor (N, 1, ..., 1)."""
        weights = self._weights
        if self._mode == "softmax":
            weights = ops.Cast()(softmax(self.alpha, 0), outputs[0].dtype)
        if self._mode == "dynamic":
            values = ops.Cast()(self.cell_list[self._count](x), outputs[0].dtype)  # (N, branches)
            ones = (1,) * (len(outputs[0].shape) - 1)
            weights = values.transpose(1, 0).reshape((self._count, -1) + ones)  # (branches, N, 1, ..., 1)
        terms = ()
        for index in range(self._count):
            terms = terms + (weights[index] * outputs[index],)
        return terms

    def extend_repr(self) -> str:
        """Return how the branches are merged, or the formula of a graph; empty for other nodes."""
        return self._describe_combination()


def _plain_steps(node: spec.Graph) -> tuple[tuple[Any, ...], ...]:
    """Return the steps of a graph as plain tuples, which graph mode accepts, with children by their index."""
    order = list(node.children)
    return tuple(
        (step.op, step.values, order.index(step.name) if step.name else 0, step.numbers) for step in node.steps
    )


class Layer(CompositeLayer, Container):
    """Base of the layer classes: `class SE(Layer, composite=spec.se)` defines the layer of a composite.

    Arguments that name an activation or a normalization (`act_layer`, `gate_layer`, `norm_layer`) also accept the
    MindSpore class; the spec contains its name.

    Args:
        *args: the positional arguments of the composite.
        **kwargs: the keyword arguments of the composite.

    Example:
        >>> from mindspore import ops
        >>> from maam import spec
        >>> from maam.mindspore.layers import Layer
        >>> @spec.composite
        ... def conv_gate(channels: int) -> spec.Node:
        ...     conv = spec.Conv2d(in_channels=channels, out_channels=1, kernel_size=1)
        ...     return spec.Scale(children={"conv": conv, "act": spec.Activation(function="sigmoid")})
        >>> class ConvGate(Layer, composite=conv_gate):
        ...     pass
        >>> ConvGate(8)(ops.ones((2, 8, 4, 4))).shape
        (2, 8, 4, 4)
    """

    _module_class = nn.Cell

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        arguments = bind_arguments(type(self).composite, args, kwargs, ACTIVATIONS, NORMS)
        node = type(self).composite(**arguments)
        super().__init__(node)  # type: ignore[arg-type]
        self.arguments = arguments
        self.rule = spec.input_rule(node)
        self.set_train(False)  # or graph mode would keep a graph compiled in inference mode after set_train()

    def extend_repr(self) -> str:
        """Return the arguments that the layer was created with."""
        return self._describe_arguments()
