"""Modules made from a spec: containers with their children under canonical names, and the base of the layer classes."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maam import spec
from maam.backend.integrity import SpecContainer
from maam.backend.layers import CompositeLayer, bind_arguments, training_order
from maam.backend.reparameterize import fused_form, stays_trainable
from maam.errors import ShapeError, SpecError
from maam.spec import Graph, InputRule, Parallel, Sequential
from maam.spec.inputs import check_training_batch
from maam.torch.arrays import dtype_name, read_arrays, unwrap, write_arrays
from maam.torch.primitives import (
    ACTIVATIONS,
    NORMS,
    WITH_ARRAYS,
    WITHOUT_ARRAYS,
    initialize,
    narrow,
    operate,
    resize,
    widen,
)

_TRAINING_SETTINGS = ("momentum=", "inplace=", "p=")
"""Settings in a module's repr that do not change its output in eval mode; p is that of dropout."""
_FROZEN = "FrozenBatchNorm2d"
"""Batch norm of torchvision, timm and detectron2 that computes as in eval mode; all its arrays are buffers."""

for _name in ("resize", "widen", "narrow"):
    torch.fx.wrap(_name)  # their control flow depends on sizes and dtypes, which symbolic tracing does not know


def instantiate(node: spec.Node, **options: Any) -> nn.Module:
    """Return the module of a node, without checks of its input; `options` are `device` and `dtype`."""
    if type(node) in WITH_ARRAYS:
        return WITH_ARRAYS[type(node)](node, **options)
    if type(node) in WITHOUT_ARRAYS:
        return WITHOUT_ARRAYS[type(node)](node)
    if not isinstance(node, (Sequential, Parallel, Graph)):
        raise SpecError(f"maam.torch has no primitive of kind {node.kind!r}; expected the layers of maam.spec")
    return Container(node, **options)


class Container(SpecContainer, nn.Module):
    """Module of a node with children: `forward` runs the children and combines their outputs.

    Attributes:
        spec: the node, with the present nodes of the containers inside.
        rule: the check of the input; None in a container inside another one.
        reparameterized: whether it was fused for deployment.
        names: the names of the children in the order of execution; a subclass may have other modules, too.
    """

    rule: InputRule | None = None
    reparameterized = False
    alpha: nn.Parameter
    weighting: nn.Module
    _method = "forward"
    _pools_first = False

    def __init__(self, node: Sequential | Parallel | Graph, **options: Any) -> None:
        super().__init__()
        self._fill(node, **options)

    def _fill(self, node: Any, **options: Any) -> None:
        self.kind = node.kind
        self._stride = getattr(node, "stride", 1)
        self._mode, self._constants = getattr(node, "merge", ""), getattr(node, "weights", None)
        self.names = tuple(node.children)
        self._program, self._array_names = getattr(node, "steps", ()), tuple(getattr(node, "arrays", ()))
        self._wide = getattr(node, "computes_wide", False)
        for name in (*node.nodes, *self._array_names):
            if hasattr(self, name):
                raise SpecError(f"layer name {name!r} is an attribute of a PyTorch module; choose another")
        for name, child in node.nodes.items():
            self.add_module(name, instantiate(child, **options))
        for parameter in node.own_parameters():
            self.register_parameter(parameter.name, nn.Parameter(torch.empty(parameter.shape, **options)))
        self.spec = node
        initialize(self, node.own_parameters())

    # --- the spec and its layers

    def _layers(self) -> Mapping[str, nn.Module | None]:
        return {name: None if module is None else unwrap(module) for name, module in self._modules.items()}

    def _fingerprint(self, layer: nn.Module) -> str:
        """Return the module's repr without settings for training.

        Wrappers are left out, and synchronized and frozen batch norm (torchvision, timm) count as batch norm.
        """
        layer = unwrap(layer)
        if type(layer).__name__ == _FROZEN and isinstance(layer.weight, Tensor):
            layer = nn.BatchNorm2d(len(layer.weight), eps=cast(float, layer.eps), device="meta")
        name = "BatchNorm2d" if isinstance(layer, nn.SyncBatchNorm) else type(layer).__name__
        settings = [part for part in layer.extra_repr().split(", ") if not part.startswith(_TRAINING_SETTINGS)]
        return f"{name}({', '.join(settings)})"

    def put(self, name: str, module: nn.Module, node: Any) -> None:
        """Replace a layer, and its node in the spec; the other layers are not checked."""
        self._modules[name] = module
        self._spec = self.spec.with_nodes({**self.spec.nodes, name: node})
        self.built = {**self.built, name: self._fingerprint(module)}

    def keep(self, names: Sequence[str]) -> None:
        """Remove all layers except `names`; the spec follows."""
        nodes = self.spec.nodes
        for gone in set(self.names) - set(names):
            delattr(self, gone)
        self.names = tuple(names)
        self._spec = self._spec.with_nodes({name: nodes[name] for name in names})
        self.built = {name: self.built[name] for name in names}

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[nn.Module]:
        return (cast(nn.Module, self._modules[name]) for name in self.names)

    def __getitem__(self, index: int | slice) -> nn.Module:
        """Return the child at a position in the order of execution; `get_submodule` accepts names."""
        if isinstance(index, slice):
            raise SpecError(
                "the spec determines the layers; to get a part of the model: maam.torch.build(module.spec.until(NAME))"
            )
        return cast(nn.Module, self._modules[self.names[index]])

    def __bool__(self) -> bool:
        return True

    def _get_name(self) -> str:
        return type(self.spec).__name__ if type(self) is Container else type(self).__name__

    def extra_repr(self) -> str:
        """Return how the branches are merged, or the formula of a graph; empty for other nodes."""
        return self._describe_combination()

    # --- the computation

    def forward(self, x: Tensor) -> Tensor:
        """Return the output for x, (N, C, H, W) or (N, features), as `maam.spec` defines it."""
        if self.rule is not None:
            check_input(self, self.rule, x)
        if self.kind == "parallel":
            # Before the branches: the backward pass adds the gradients of x in reverse order, in the memory format of
            # the first one, and that of a global average pooling is not channels_last.
            weights = self._weights(x)
            return self._merge([self._modules[name](x) for name in self.names], weights)  # type: ignore[misc]
        if self.kind == "graph":
            return self._compute(x)
        y = x
        for child in self._ordered():
            y = child(y)
        if self.kind == "residual":
            return x + y
        if self.kind == "scale":
            return x * y
        if self.kind == "resize":
            return resize(y, x.shape[2] // self._stride, x.shape[3] // self._stride)
        return y

    def _ordered(self) -> list[nn.Module]:
        children = [cast(nn.Module, self._modules[name]) for name in self.names]
        return training_order(children, nn.ReLU, nn.MaxPool2d) if self.training and self._pools_first else children

    def _compute(self, x: Tensor) -> Tensor:
        """Return the result of the formula of a graph."""
        values: list[Any] = [x, *(getattr(self, name) for name in self._array_names)]
        if self._wide:
            values = [widen(value) for value in values]
        for step in self._program:
            given = [values[index] for index in step.values]
            values.append(self._modules[step.name](given[0]) if step.op == "call" else operate(step, given))  # type: ignore[misc]
        return narrow(values[-1], x) if self._wide else cast(Tensor, values[-1])

    def _merge(self, outputs: list[Tensor], weights: Any) -> Tensor:
        if self._mode == "concat":
            return torch.cat(outputs, 1)  # (N, C1 + C2 + ..., H, W)
        if self._mode == "stack":
            return torch.cat(outputs, 2)  # (N, C, H1 + H2 + ..., W)
        if self._mode == "sum":
            return sum(outputs[1:], outputs[0])
        if self._mode == "dynamic":
            expanded = (...,) + (None,) * (outputs[0].dim() - 1)
            weights = weights.to(outputs[0].dtype)[expanded].unbind(1)  # (N, 1, ..., 1)
        # indexed, because symbolic tracing cannot iterate over the weights
        terms = [weights[index] * output for index, output in enumerate(outputs)]
        return sum(terms[1:], terms[0])

    def _weights(self, x: Tensor) -> Any:
        """Return the weights of the branches: numbers, scalar tensors, a tensor (N, branches), or None."""
        if self._mode == "weighted":
            return self._constants
        if self._mode == "softmax":
            return torch.softmax(self.alpha, 0).unbind(0)  # scalars: they promote no branch's dtype
        return self.weighting(x) if self._mode == "dynamic" else None  # (N, branches)

    def __prepare_scriptable__(self) -> nn.Module:
        """Return a form of this module for `torch.jit.script`: TorchScript cannot compile loops over a spec's layers.

        It shares the parameters. It is for inputs of any size, does not check them, and keeps train or eval mode.
        """
        traced = torch.fx.symbolic_trace(self)
        for node in traced.graph.nodes:
            node.type = None  # the annotations have names that TorchScript does not know
        traced.recompile()
        return traced

    # --- changes in place

    def reset_parameters(self) -> None:
        """Draw all parameters again and reset running statistics, in this module and all layers inside it."""
        initialize(self, self.spec.own_parameters())
        for child in self.children():
            if callable(reset := getattr(child, "reset_parameters", None)):
                reset()

    def pool_first(self) -> None:
        """Use `training_order` in train mode from now on, as the training loop does.

        Outputs and gradients stay the same bit for bit; hooks on a ReLU see the pooled map. The order of the spec is
        kept in eval mode, which inference engines expect.
        """
        self._pools_first = True

    def reparameterize(self) -> None:
        """Fuse the module for deployment, in place, as `maam.fuse` does; nothing happens if there is nothing to fuse.

        The new parameters have the device, dtype and memory format of the old ones. A parameter is frozen if all old
        parameters of its layer were frozen. Hooks on layers inside are lost. `timm.utils.reparameterize_model` calls
        this method.

        Raises:
            DeploymentError: the module is in train mode, is already fused, or has a layer that differs from its spec.
            WeightsError: a parameter holds NaN or infinity.
        """
        found = fused_form(self, read_arrays)
        if found is None:
            return
        like = next(self.parameters())
        before = {name: parameter.requires_grad for name, parameter in self.named_parameters()}
        maps = [p for p in self.parameters() if p.dim() == 4 and not p.is_contiguous()]
        for name in (*self._spec.nodes, *(p.name for p in self._spec.own_parameters())):
            delattr(self, name)
        self._fill(found[0], device=like.device, dtype=like.dtype)
        write_arrays(self, found[1])
        if maps and all(p.is_contiguous(memory_format=torch.channels_last) for p in maps):
            self.to(memory_format=torch.channels_last)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(stays_trainable(before, name))
        for container in [m for name in self._spec.nodes for m in self._modules[name].modules()]:  # type: ignore[union-attr]
            container.training = False
        self.reparameterized = True


class Layer(CompositeLayer, Container):
    """Base of the layer classes: `class SE(Layer, composite=spec.se)` defines the layer of a composite.

    Arguments that name an activation or a normalization (`act_layer`, `gate_layer`, `norm_layer`) also accept the
    PyTorch class; the spec contains its name.

    Args:
        *args: the positional arguments of the composite.
        device: the device of the parameters.
        dtype: the dtype of the parameters.
        **kwargs: the keyword arguments of the composite.

    Example:
        >>> import torch
        >>> from maam import spec
        >>> from maam.torch.layers import Layer
        >>> @spec.composite
        ... def conv_gate(channels: int) -> spec.Node:
        ...     conv = spec.Conv2d(in_channels=channels, out_channels=1, kernel_size=1)
        ...     return spec.Scale(children={"conv": conv, "act": spec.Activation(function="sigmoid")})
        >>> class ConvGate(Layer, composite=conv_gate):
        ...     pass
        >>> ConvGate(8)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    _module_class = nn.Module
    _own_parameters = (
        inspect.Parameter("device", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=torch.device | str | None),
        inspect.Parameter("dtype", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=torch.dtype | None),
    )

    def __init__(
        self,
        *args: Any,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = bind_arguments(type(self).composite, args, kwargs, ACTIVATIONS, NORMS)
        node = type(self).composite(**arguments)
        super().__init__(node, device=device, dtype=dtype)  # type: ignore[arg-type]
        self.arguments = arguments
        self.rule = spec.input_rule(node)

    def extra_repr(self) -> str:
        """Return the arguments that the layer was created with."""
        return self._describe_arguments()


def check_input(module: Any, rule: InputRule, x: Any) -> None:
    """Raise ShapeError unless a module accepts an input.

    Args:
        module: a module with the attributes `spec` and `training`.
        rule: the rule of its spec.
        x: the input.
    """
    if isinstance(x, torch.fx.Proxy):
        return
    if not isinstance(x, Tensor):
        raise ShapeError(
            f"expected a torch.Tensor {rule.describe()}, got {type(x).__name__}; convert it with torch.as_tensor"
        )
    if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        with warnings.catch_warnings():  # of values that the trace does not record: the check is for the example only
            warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
            _check(module, rule, x)
    else:
        _check(module, rule, x)


def _check(module: Any, rule: InputRule, x: Tensor) -> None:
    own = _own_dtype(module)
    expected = None if own != x.dtype and _casts(x) else own
    accepted = rule.accepts(x.shape) and x.is_floating_point() and expected in (None, x.dtype)
    if not accepted:
        rule.check(tuple(x.shape), dtype_name(x.dtype), None if expected is None else dtype_name(expected))
    if module.training and not torch.compiler.is_compiling() and x.shape[0] == 1:
        check_training_batch(module.spec, tuple(x.shape), lambda path: _normalizes(module, path))


def _own_dtype(module: nn.Module) -> torch.dtype | None:
    """Return the dtype of the first parameter; torch.compile of PyTorch 2.8 refuses `next` with a default."""
    for parameter in module.parameters():
        return parameter.dtype
    return None


def _casts(x: Tensor) -> bool:
    """Return whether automatic mixed precision is on and converts `x`; it does not convert float64."""
    kind = x.device.type  # the meta device has no such state
    return x.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind)


def _normalizes(module: nn.Module, path: str) -> bool:
    """Return whether the layer at a path of the spec is a batch norm in train mode over the batch of one process."""
    try:
        layer = module.get_submodule(path)
    except AttributeError:  # the layer around it was replaced
        return False
    return isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm) and layer.training
