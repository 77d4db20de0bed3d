"""The containers of `maam.spec` as one PyTorch module: children under their canonical names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maam import spec
from maam.backend.integrity import check_conforms, check_method
from maam.backend.layers import training_order
from maam.backend.reparameterize import fused_form, stays_trainable
from maam.errors import DeploymentError, MaamError, ShapeError, SpecError
from maam.spec import InputRule, Parallel, Sequential
from maam.spec.inputs import check_training_batch
from maam.torch.arrays import read_arrays, write_arrays
from maam.torch.primitives import WITH_ARRAYS, WITHOUT_ARRAYS, initialize, resize


def check_input(module: Any, rule: InputRule, x: Any) -> None:
    """Refuse what `module` cannot take, in the spec's words.

    Raises:
        ShapeError: what was given, and what was expected.
    """
    if isinstance(x, torch.fx.Proxy):
        return
    if not isinstance(x, Tensor):
        raise ShapeError(
            f"expected a torch.Tensor {rule.describe()}, got {type(x).__name__}; torch.as_tensor makes one"
        )
    own = _parameter_dtype(module)
    expected = None if own != x.dtype and _casts(x) else own
    accepted = rule.accepts(x.shape) and x.is_floating_point() and expected in (None, x.dtype)
    if not accepted:
        rule.check(tuple(x.shape), _name(x.dtype), None if expected is None else _name(expected))
    if module.training and not torch.compiler.is_compiling() and x.shape[0] == 1:
        check_training_batch(module.spec, tuple(x.shape), lambda path: _normalises(module, path))


def _normalises(module: nn.Module, path: str) -> bool:
    """Whether there is a batch norm in train mode, not one over several processes, where the spec has one."""
    try:
        layer = module.get_submodule(path)
    except AttributeError:  # what holds it was replaced
        return False
    return isinstance(layer, _BatchNorm) and not isinstance(layer, nn.SyncBatchNorm) and layer.training


def _casts(x: Tensor) -> bool:
    """Whether automatic mixed precision is on and converts `x` (it leaves float64 alone)."""
    kind = x.device.type  # the meta device has no such state to ask for
    return x.dtype != torch.float64 and kind != "meta" and torch.is_autocast_enabled(kind)


def _parameter_dtype(module: nn.Module) -> torch.dtype | None:
    for parameter in module.parameters():
        return parameter.dtype
    return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_TRAINING_ALONE = ("momentum=", "inplace=", "p=")
"""Settings that do not count; p is that of dropout."""


def check_module(module: nn.Module, act: str, error: type[MaamError], skip: Sequence[str] = ()) -> None:
    """Refuse a module of maam in which a layer was replaced, or its settings were changed; but for those in `skip`.

    Raises:
        error: naming the layer, what it was and what it is.
    """
    check_conforms(module, _children, words, act, error, skip)


def check_forward(module: nn.Module, act: str, error: type[MaamError], *, root: bool = True) -> None:
    """Refuse a module of maam (with `root`), or one that it holds, whose class is a user's with a forward of its own.

    Raises:
        error: naming the class.
    """
    check_method(module, _children, "forward", act, error, root=root)


def check_names(names: Iterable[str], container: nn.Module) -> None:
    """Refuse names of layers that a container without layers has for attributes of its own.

    Raises:
        SpecError: naming the layer.
    """
    for name in names:
        if hasattr(container, name):
            raise SpecError(f"layer name {name!r} is an attribute of a PyTorch module; choose another")


def words(module: nn.Module) -> str:
    """What a layer computes by, as its repr says it; synchronised batch norm computes what batch norm does."""
    name = "BatchNorm2d" if isinstance(module, nn.SyncBatchNorm) else type(module).__name__
    settings = [part for part in module.extra_repr().split(", ") if not part.startswith(_TRAINING_ALONE)]
    return f"{name}({', '.join(settings)})"


def _children(module: nn.Module) -> Mapping[str, nn.Module | None]:
    return module._modules


torch.fx.wrap("resize")  # its control flow depends on sizes, which symbolic tracing does not know


def instantiate(node: spec.Node, **options: Any) -> nn.Module:
    """The module of a node; `options` are `device` and `dtype`."""
    if type(node) in WITH_ARRAYS:
        return WITH_ARRAYS[type(node)](node, **options)
    if type(node) in WITHOUT_ARRAYS:
        return WITHOUT_ARRAYS[type(node)](node)
    if not isinstance(node, (Sequential, Parallel)):
        raise SpecError(f"maam.torch has no primitive of kind {node.kind!r}")
    return Container(node, **options)


class Container(nn.Module):
    """A node that holds others; its forward runs the children and combines what they give.

    Attributes:
        spec: the node; it follows where `reparameterize` changes a container below.
        rule: what the input must be; None inside another container, which has checked already.
        reparameterized: whether it was fused for deployment.
    """

    rule: InputRule | None = None
    reparameterized = False
    _pools_first = False
    _spec: Any
    alpha: nn.Parameter
    weighting: nn.Module

    def __init__(self, node: Sequential | Parallel, **options: Any) -> None:
        super().__init__()
        self._fill(node, **options)

    def _fill(self, node: Any, **options: Any) -> None:
        self.kind = node.kind
        self._stride = getattr(node, "stride", 1)
        self._mode, self._constants = getattr(node, "merge", ""), getattr(node, "weights", None)
        self.names = tuple(node.children)  # what forward runs; a subclass may add modules of its own
        check_names(node.nodes, self)
        for name, child in node.nodes.items():
            self.add_module(name, instantiate(child, **options))
        for parameter in node.own_parameters():
            self.register_parameter(parameter.name, nn.Parameter(torch.empty(parameter.shape, **options)))
        self.spec = node
        initialize(self, node.own_parameters())

    @property
    def spec(self) -> Any:
        """The node, as the containers below now are."""
        below = {name: self._modules.get(name) for name in self._spec.nodes}
        changed = {
            n: m.spec for n, m in below.items() if isinstance(m, Container) and m.spec is not self._spec.nodes[n]
        }
        if changed:
            self._spec = self._spec.with_nodes({**self._spec.nodes, **changed})
        return self._spec

    @spec.setter
    def spec(self, node: Any) -> None:
        """Who sets it answers for it: the layers are from now on taken for what it says."""
        self._spec = node
        self.built = {name: words(self._modules[name]) for name in node.nodes}  # type: ignore[arg-type]

    def put(self, name: str, module: nn.Module, node: Any) -> None:
        """Put a layer in the place of another, and its node into the spec; of the other layers nothing is said."""
        self._modules[name] = module
        self._spec = self.spec.with_nodes({**self.spec.nodes, name: node})
        self.built = {**self.built, name: words(module)}

    def keep(self, names: Sequence[str]) -> None:
        """Take away the layers that are not named; the spec follows."""
        nodes = self.spec.nodes
        for gone in set(self.names) - set(names):
            delattr(self, gone)
        self.names = tuple(names)
        self._spec = self._spec.with_nodes({name: nodes[name] for name in names})
        self.built = {name: self.built[name] for name in names}

    def reparameterize(self) -> None:
        """Fuse for deployment, in place, as `maam.fuse` does.

        Parameters are new ones, in the old device, dtype and memory format; of layers whose parameters were all frozen
        the new ones are too; hooks on layers inside are gone. Where there is nothing to fuse, nothing happens. timm's
        `reparameterize_model` calls it on what it finds.

        Raises:
            DeploymentError: the module is in train mode, was fused before, or has a layer that its spec does not say.
            WeightsError: a parameter holds NaN or infinity.
        """
        inner = self.rule is None and self.reparameterized  # timm goes on into what it has fused
        if not inner:
            check_module(self, "reparameterize", DeploymentError)
            check_forward(self, "reparameterize", DeploymentError, root=False)  # what is below is made anew
        found = None if inner else fused_form(self, read_arrays(self))
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

    def pool_first(self) -> None:
        """Run a chain in `training_order` in train mode from now on; engines for inference like the order of the spec.

        For training loops of ours: hooks on a ReLU see the pooled map. The same outputs and gradients, bit for bit.
        """
        self._pools_first = True

    def reset_parameters(self) -> None:
        """Draw all parameters anew and reset running statistics, here and below."""
        initialize(self, self.spec.own_parameters())
        for child in self.children():
            if callable(reset := getattr(child, "reset_parameters", None)):
                reset()

    def forward(self, x: Tensor) -> Tensor:
        """The node's function, as `maam.spec` defines it: (N, C, H, W) or (N, features) to the output's shape."""
        if self.rule is not None:
            check_input(self, self.rule, x)
        if self.kind == "parallel":
            return self._merge(x, [self._modules[name](x) for name in self.names])  # type: ignore[misc]
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

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[nn.Module]:
        return (cast(nn.Module, self._modules[name]) for name in self.names)

    def __getitem__(self, index: int | slice) -> nn.Module:
        """The layer that runs at this place, as of an `nn.Sequential`; `get_submodule` takes names."""
        if isinstance(index, slice):
            raise SpecError("the layers are those of the spec: a part is maam.torch.build(module.spec.until(NAME))")
        return cast(nn.Module, self._modules[self.names[index]])

    def __bool__(self) -> bool:
        return True

    def _get_name(self) -> str:
        return type(self.spec).__name__ if type(self) is Container else type(self).__name__

    def extra_repr(self) -> str:
        """How the branches are merged, where there are branches."""
        return f"merge={self._mode!r}" if self.kind == "parallel" else ""

    def _merge(self, x: Tensor, outputs: list[Tensor]) -> Tensor:
        if self._mode == "concat":
            return torch.cat(outputs, 1)  # (N, C1 + C2 + ..., H, W)
        if self._mode == "stack":
            return torch.cat(outputs, 2)  # (N, C, H1 + H2 + ..., W)
        if self._mode == "sum":
            return sum(outputs[1:], outputs[0])
        weights = self._weights(x, outputs)  # indexed, because symbolic tracing cannot iterate over it
        terms = [weights[index] * output for index, output in enumerate(outputs)]
        return sum(terms[1:], terms[0])

    def _weights(self, x: Tensor, outputs: list[Tensor]) -> Any:
        """One weight for each branch: a number, a scalar tensor, or a tensor (N, 1, ..., 1)."""
        if self._mode == "weighted":
            return self._constants
        if self._mode == "softmax":
            return torch.softmax(self.alpha, 0).unbind(0)  # scalars: they promote no branch's dtype
        weights = self.weighting(x).to(outputs[0].dtype)  # (N, branches)
        return weights[(...,) + (None,) * (outputs[0].dim() - 1)].unbind(1)
