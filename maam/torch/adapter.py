"""The adapter of a user's PyTorch module for a port; see `maam.backend.adapter.ModelAdapter`."""

from __future__ import annotations

import copy
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from maam._io import replacing
from maam.backend.adapter import (
    Call,
    Inputs,
    Layer,
    Recorder,
    Setting,
    Slot,
    check_model,
    first_of,
    is_dropout,
    with_first,
)
from maam.errors import PortingError
from maam.spec.node import join_path
from maam.torch.arrays import dtype_name, from_numpy, preserve_modes, to_numpy
from maam.torch.settings import read_settings, write_module
from maam.torch.structure import (
    computed_weights,
    fixed_form,
    is_compiled,
    module_kind,
    modules_by_path,
    neutral,
    old_hooks,
    own_tensors,
    with_plain_weights,
)
from maam.weights.file import write_safetensors

Array = np.ndarray[Any, Any]


class ModelAdapter:
    """A module in eager mode, on its present device."""

    framework = "torch"
    mixed = ""

    def __init__(self, model: Any) -> None:
        check_model(model, nn.Module, "torch.nn.Module")
        self.original, self.model = model, model
        self.remarks: tuple[str, ...] = ()
        if computed := computed_weights(model):
            self.model = with_plain_weights(model)
            self.remarks = (
                f"PyTorch computes {computed[0]} ({len(computed)} such arrays) by a parametrization: its present value "
                "is compared, and training moves that value",
            )
        self.fixed = fixed_form(model)
        self._paths = modules_by_path(self.model)
        self._compiled = is_compiled(self.model)

    def layers(self) -> list[Layer]:
        """Return all layers in the order of registration."""
        first: dict[int, str] = {}
        return [Layer(name, module_kind(m), _slots(name, m, first)) for name, m in self._modules()]

    def settings(self, name: str, inputs: Sequence[tuple[int, ...]]) -> dict[str, Setting]:
        """Return the settings of the layer `name`, by the names of its arguments."""
        module = self._module(name)
        if self.fixed:
            return {}
        dtypes = [dtype_name(tensor.dtype) for tensor in own_tensors(module).values()]
        precision = dtypes[0] if dtypes else "float32"
        return {**read_settings(module_kind(module), module, inputs), "precision": Setting(precision, precision)}

    def write_layer(self, name: str, values: Mapping[str, Any], inputs: Sequence[tuple[int, ...]] = ()) -> str:
        """Return the expression that builds the layer `name` with other values of some settings; "" if unknown."""
        module = self._module(name)
        return "" if self.fixed else write_module(module_kind(module), module, values)

    def build(self, expression: str) -> ModelAdapter:
        """Return the adapter of a new layer from the expression of `write_layer`; the random state stays."""
        with torch.random.fork_rng(devices=[]):
            return ModelAdapter(eval(expression, {"nn": nn}))

    def read(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """Return copies of the arrays of these names, or of all layers."""
        own = self._tensors()
        return {name: to_numpy(own[name]) for name in (own if names is None else names)}

    def write(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""
        own = self._tensors()
        with torch.no_grad():
            for name, array in arrays.items():
                own[name].copy_(from_numpy(array))

    def commit(self) -> None:
        """Copy the arrays into the user's module if the adapter works on a copy with computed weights.

        Raises:
            PortingError: a parametrization cannot take a value, such as that of spectral_norm.
        """
        if self.model is self.original:
            return
        own, targets = self._tensors(), modules_by_path(self.original)
        before = copy.deepcopy(self.original.state_dict())
        for name, tensor in own.items():
            path, _, local = name.rpartition(".")
            if local in own_tensors(targets[path]):
                with torch.no_grad():
                    own_tensors(targets[path])[local].copy_(tensor)
            elif not _assign_computed(targets[path], local, tensor):
                self.original.load_state_dict(before)
                raise PortingError(f"{name}: the parametrization cannot take a value; remove it before the port")

    def forward(self, inputs: Inputs, training: bool = False) -> Array:
        """Return the output; train mode updates the running statistics, and dropout is off."""
        with torch.no_grad(), self._mode(training):
            return to_numpy(self._output(self._tensors_of(inputs)))

    def record(
        self, inputs: Inputs, training: bool = False, replaced: Mapping[tuple[str, int], Array] | None = None
    ) -> tuple[Array, list[Call]]:
        """Return the output, and the calls of all layers in the order of execution."""
        recorder = Recorder(Tensor, to_numpy, replaced)
        with _hooks([] if self.fixed else self._modules(), recorder):
            output = self.forward(inputs, training)
        return output, recorder.calls

    def run_layer(
        self, name: str, inputs: Inputs, training: bool = False, options: Mapping[str, Any] | None = None
    ) -> Array:
        """Return the output of the layer `name`, or the first tensor of several, for inputs of this layer."""
        layer = self._module(name)
        with torch.no_grad(), self._mode(training, layer):
            output = first_of(layer(*self._tensors_of(inputs), **(options or {})), Tensor)
        if output is None:
            raise PortingError("the layer returns no tensor")
        return to_numpy(output)

    def gradients(self, inputs: Inputs, cotangent: Array) -> dict[str, Array]:
        """Return the gradients of sum(output * cotangent) in train mode, for all trainable arrays."""
        own = {name: tensor for name, tensor in self._tensors().items() if tensor.requires_grad}
        with self._mode(True):
            scalar = (self._output(self._tensors_of(inputs)) * self._tensor(cotangent)).sum()
            found = torch.autograd.grad(scalar, list(own.values()), allow_unused=True)
        pairs = zip(own.items(), found, strict=True)
        return {name: to_numpy(torch.zeros_like(t) if g is None else g) for (name, t), g in pairs}

    def train(self, batches: Sequence[tuple[Inputs, Array]], lr: float, momentum: float, weight_decay: float) -> None:
        """Take a step of SGD for each (inputs, target).

        The loss is mean cross entropy for integer targets, and mean(output * target) for others.
        """
        own = [p for p in self.model.parameters() if p.requires_grad]
        before = [p.grad for p in own]
        optimizer = torch.optim.SGD(own, lr, momentum=momentum, weight_decay=weight_decay)
        try:
            with self._mode(True):
                for inputs, target in batches:
                    optimizer.zero_grad()
                    loss = _loss(self._output(self._tensors_of(inputs)), self._tensor(target))
                    loss.backward()  # type: ignore[no-untyped-call]
                    for parameter in own:  # MindSpore decays arrays that the model does not use, PyTorch leaves them
                        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                    optimizer.step()
        finally:
            for parameter, gradient in zip(own, before, strict=True):
                parameter.grad = gradient

    def double(self) -> ModelAdapter | None:
        """Return an adapter of a copy in float64; None if the module cannot be copied."""
        try:
            return ModelAdapter(copy.deepcopy(self.model).double())
        except Exception:  # a user's module may raise anything
            return None

    def save(self, path: Path, note: Mapping[str, str]) -> str:
        """Write the state of the user's module, under its own keys, to a .pth or .safetensors file.

        Returns:
            The code that loads the file into a module that was built in the same way.

        Raises:
            PortingError: the state has a value that is no tensor, and the file is a .safetensors file.
        """
        state, name = OrderedDict(self.original.state_dict()), json.dumps(str(path), ensure_ascii=False)
        if path.suffix == ".safetensors":
            if other := [key for key, value in state.items() if not isinstance(value, Tensor)]:
                raise PortingError(f"{path}: expected tensors only, but {other[0]} is not one; write a .pth file")
            arrays = {key: to_numpy(value) for key, value in state.items()}
            write_safetensors(path, arrays, {"framework": self.framework, **note})
            return f"model.load_state_dict(safetensors.torch.load_file({name}))"
        versions = getattr(self.original.state_dict(), "_metadata", {})
        state._metadata = {**versions, "": {"version": 1, **versions.get("", {}), **note}}  # type: ignore[attr-defined]
        with replacing(path) as temporary:
            torch.save(state, temporary)
        return f"model.load_state_dict(torch.load({name}))"

    def _module(self, name: str) -> nn.Module:
        return self._paths[name]

    def _modules(self) -> list[tuple[str, nn.Module]]:
        return [(n, m) for n, m in self._paths.items() if not len(m._modules) or own_tensors(m)]

    def _tensors(self) -> dict[str, Tensor]:
        return {
            join_path(name, local): t for name, module in self._modules() for local, t in own_tensors(module).items()
        }

    def _tensor(self, x: Array) -> Tensor:
        like = next((p for p in self.model.parameters() if p.is_floating_point()), torch.empty(0))
        tensor = from_numpy(x).to(like.device)
        return tensor.to(like.dtype) if tensor.is_floating_point() else tensor.long()

    def _tensors_of(self, inputs: Inputs) -> list[Tensor]:
        return [self._tensor(x) for x in inputs]

    def _output(self, inputs: Sequence[Tensor]) -> Tensor:
        output = self.model(*inputs)
        if not isinstance(output, Tensor):
            raise PortingError(f"expected one tensor as output of the module, got a {type(output).__name__}; wrap it")
        return output

    @contextmanager
    def _mode(self, training: bool, part: nn.Module | None = None) -> Iterator[None]:
        """Run the model or a part of it in a mode; restore the modes of its modules and its counters."""
        part = self.model if part is None else part
        counters = [(b, b.clone()) for b in part.buffers() if not b.is_floating_point()]
        with preserve_modes(part) as modes:
            with suppress(NotImplementedError):  # exported modules have one mode
                part.train(training)
            for module in modes:
                if is_dropout(type(module)):
                    module.eval()
            try:
                with _without_compiling() if self._compiled else nullcontext():
                    yield
            finally:
                with torch.no_grad():
                    for buffer, value in counters:
                        buffer.copy_(value)


def _assign_computed(module: nn.Module, name: str, tensor: Tensor) -> bool:
    """Assign a value to an array that a parametrization computes; return whether it now has this value."""
    try:
        with torch.no_grad(), preserve_modes(module):
            module.eval()  # spectral_norm takes a step in train mode
            hook = next((hook for hook in old_hooks(module) if hook.name == name), None)
            if hook is None:
                setattr(module, name, tensor.detach().clone())  # a Parameter would be registered
            else:  # only weight_norm takes a value: as direction and length
                getattr(module, f"{name}_v").copy_(tensor)
                getattr(module, f"{name}_g").copy_(torch.norm_except_dim(tensor, 2, hook.dim))
                setattr(module, name, hook.compute_weight(module))
            return torch.allclose(getattr(module, name), tensor, rtol=1e-4, atol=1e-6)
    except Exception:  # parametrizations may raise anything
        return False


@contextmanager
def _without_compiling() -> Iterator[None]:
    """Run modules inside torch.compile in eager mode, because compiled code runs no hooks."""
    torch.compiler.set_stance("force_eager")
    try:
        yield
    finally:
        torch.compiler.set_stance("default")


def _slots(name: str, module: nn.Module, first: dict[int, str]) -> dict[str, Slot]:
    """Return the slots of a module; `first` collects the names of tensors to find tied ones."""
    kind, found = module_kind(module), {}
    for local, tensor in own_tensors(module).items():
        full = join_path(name, local)
        before = first.setdefault(id(tensor), full)
        tied = "" if before == full else before
        found[local] = Slot(full, tuple(tensor.shape), tensor.requires_grad, neutral(kind, local, tensor), tied)
    return found


def _loss(output: Tensor, target: Tensor) -> Tensor:
    if target.is_floating_point():
        return (output * target).mean()
    return nn.functional.cross_entropy(output, target)


@contextmanager
def _hooks(modules: Sequence[tuple[str, nn.Module]], recorder: Recorder) -> Iterator[None]:
    """Record the calls of modules; inputs are copied before a layer runs, because many layers change them in place."""
    entered: list[tuple[Inputs | None, Mapping[str, Any]]] = []
    handles = []
    for name, module in modules:
        handles.append(module.register_forward_pre_hook(_enter(entered, recorder), with_kwargs=True))
        handles.append(module.register_forward_hook(_leave(name, entered, recorder)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(
    entered: list[tuple[Inputs | None, Mapping[str, Any]]], recorder: Recorder
) -> Callable[[Any, Any, Any], None]:
    def hook(_module: Any, inputs: Any, named: Any) -> None:
        entered.append((recorder.copy_inputs(inputs, named), dict(named)))

    return hook


def _leave(
    name: str, entered: list[tuple[Inputs | None, Mapping[str, Any]]], recorder: Recorder
) -> Callable[[Any, Any, Any], Any]:
    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        new = recorder.add(name, *entered.pop(), output)
        return None if new is None else with_first(output, Tensor, from_numpy(new).to(first_of(output, Tensor)))

    return hook
