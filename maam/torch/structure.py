"""The structure of a user's module for a port: paths without wrappers, and weights that are computed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from maam.backend.adapter import OWN, is_neutral, kind_of
from maam.spec.node import join_path
from maam.weights.match import is_batch_counter

_INNER = {
    "OptimizedModule": "_orig_mod",
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "AveragedModel": "module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
    "OffloadWrapper": "_checkpoint_wrapped_module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
}
"""The name of the only child of each class that wraps a module and computes the same."""
_TRACED, _SCRIPTED, _EXPORTED = "a traced module", "a scripted module", "an exported module"
_OF_EXPORT = ("_StatefulGraphModule", "UnflattenedModule", "InterpreterModule")
"""The classes of modules that torch.export makes; they keep the mode of the export."""


def modules_by_path(model: nn.Module) -> dict[str, nn.Module]:
    """Return all modules by their path in the model, without the names of wrappers; shared ones are listed once."""
    found: dict[str, nn.Module] = {}
    seen: set[int] = set()
    for path, module in _walk(model, ""):
        if id(module) not in seen:
            found[path] = module
        seen.add(id(module))
    return found


def _walk(module: nn.Module, path: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield each module that is no wrapper, with its path without the names of wrappers."""
    inner = next((_INNER[base.__name__] for base in type(module).__mro__ if base.__name__ in _INNER), "")
    if not inner or inner not in module._modules:
        yield path, module
    for name, child in module._modules.items():
        if child is not None:
            yield from _walk(child, path if name == inner else join_path(path, name))


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Return the parameters and persistent buffers of a module, without its children, that contain real numbers."""
    found: dict[str, Tensor | None] = dict(module._parameters.items())
    transient = getattr(module, "_non_persistent_buffers_set", ())
    found |= {name: buffer for name, buffer in module._buffers.items() if name not in transient}
    return {n: t for n, t in found.items() if t is not None and t.is_floating_point() and not is_batch_counter(n)}


def neutral(kind: str, name: str, tensor: Tensor) -> bool:
    """Return whether an array changes nothing."""
    return is_neutral(kind, name, tensor.detach().float().cpu().numpy())


def module_kind(module: nn.Module) -> str:
    """Return the kind of a module; a scripted one keeps the name of its class."""
    if isinstance(module, torch.jit.ScriptModule):
        cls = getattr(nn, str(getattr(module, "original_name", "")), None)
        return kind_of(cls if isinstance(cls, type) else nn.Module, "torch")
    return OWN if _is_exported(module) else kind_of(type(module), "torch")


def _is_exported(module: nn.Module) -> bool:
    return any(base.__name__ in _OF_EXPORT for base in type(module).__mro__)


def fixed_form(model: nn.Module) -> str:
    """Return why the layers of a model cannot be observed; empty if they can."""
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            traced = any("TracedModule" in type(part).__name__ for part in model.modules())
            return _TRACED if traced or "TracedModule" in type(module).__name__ else _SCRIPTED
        if _is_exported(module):
            return _EXPORTED
    return ""


def is_compiled(model: nn.Module) -> bool:
    """Return whether torch.compile has compiled the model or a part of it."""
    return any(hasattr(m, "_orig_mod") or getattr(m, "_compiled_call_impl", None) for m in model.modules())


def computed_weights(model: nn.Module) -> list[str]:
    """Return the paths of the arrays that a parametrization computes, such as weight_norm."""
    return [join_path(path, name) for path, module in modules_by_path(model).items() for name in _computed(module)]


def _computed(module: nn.Module) -> Iterator[str]:
    if parametrize.is_parametrized(module):
        yield from module.parametrizations  # type: ignore[misc]
    for hook in old_hooks(module):
        yield hook.name


def old_hooks(module: nn.Module) -> list[Any]:
    """Return the hooks of torch.nn.utils.weight_norm and spectral_norm, which predate parametrizations."""
    names = ("WeightNorm", "SpectralNorm")
    return [hook for hook in module._forward_pre_hooks.values() if type(hook).__name__ in names]


def with_plain_weights(model: nn.Module) -> nn.Module:
    """Return a copy of the model in which the present values replace all parametrizations."""
    computed = [v for m in model.modules() for v in vars(m).values() if isinstance(v, Tensor) and not v.is_leaf]
    plain = copy.deepcopy(model, {id(tensor): tensor.detach().clone() for tensor in computed})
    plain.eval()  # spectral_norm takes a step in train mode
    for module in list(plain.modules()):
        if parametrize.is_parametrized(module):
            _make_plain(module)
        for key, hook in list(module._forward_pre_hooks.items()):
            if type(hook).__name__ in ("WeightNorm", "SpectralNorm"):
                hook.remove(module)  # type: ignore[attr-defined]
                del module._forward_pre_hooks[key]
    for own, copied in zip(_unparametrized(model), _unparametrized(plain), strict=True):
        copied.training = own.training
    return plain


def _make_plain(module: nn.Module) -> None:
    """Replace all parametrizations of a module by parameters.

    `remove_parametrizations` would change the class, which the user's module shares with its copy.
    """
    originals: Any = module.parametrizations
    trained = {name: any(p.requires_grad for p in chain.parameters()) for name, chain in originals.items()}
    values = {name: getattr(module, name).detach().clone() for name in trained}
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    rest = dict(module._parameters)
    module._parameters.clear()
    for name, value in values.items():
        module.register_parameter(name, nn.Parameter(value, requires_grad=trained[name]))
    module._parameters.update(rest)


def _unparametrized(model: nn.Module) -> list[nn.Module]:
    return [m for n, m in model.named_modules() if "parametrizations" not in n.split(".")]
