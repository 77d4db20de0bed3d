"""The registry of backends: the one place that knows which frameworks exist, and imports them when they are needed.

Each framework has a `BackendEntry` with the facts that help texts and errors need before anything is imported.
`register` adds another framework.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np

from maam._messages import suggestion
from maam._signals import Deferred
from maam.backend.protocol import (
    Backend,
    Capability,
    CheckpointBackend,
    ExportBackend,
    GradientReferenceBackend,
    PortingBackend,
    Runner,
    TrainingBackend,
)
from maam.errors import MissingFrameworkError, SpecError, require
from maam.spec import Node

Array = np.ndarray[Any, Any]
_ONNX = (("torch", "torch"), ("onnx", "deploy"), ("onnxscript", "deploy"), ("onnxruntime", "deploy"))


class Format(NamedTuple):
    """A format of exported models.

    Attributes:
        suffix: the suffix of the files.
        packages: the packages needed to write and read files, as pairs (package, extra).
        companions: the suffixes of files written beside the model.
        engine: the inference engine that reads the format without the backend: "onnx", "openvino" or "".
        readable: whether maam can open and run a file. It cannot run AIR, which Ascend's compiler must convert first.
        free_size: whether the height and width of the input can be free.
    """

    suffix: str
    packages: tuple[tuple[str, str], ...]
    companions: tuple[str, ...] = ()
    engine: str = ""
    readable: bool = True
    free_size: bool = True


@dataclass(frozen=True)
class BackendEntry:
    """The facts about a backend that are known without importing it.

    Attributes:
        name: the name in calls and commands, as in `framework="torch"`.
        title: the name in texts, as in "PyTorch".
        location: "module:attribute" of an object that implements `Backend`.
        package: the package that must be installed.
        extra: the extra of maam that installs it.
        modes: the modes of its runners by name, the default first, each with its capabilities.
        capabilities: what the backend provides beyond building and running models.
        formats: the formats it exports to, by name.
        checkpoint_suffixes: the suffixes of its checkpoint files.

    Example:
        >>> from maam.backend import find_entry
        >>> entry = find_entry("mindspore")
        >>> entry.title, entry.package, list(entry.modes)
        ('MindSpore', 'mindspore', ['mindspore graph', 'mindspore pynative'])
    """

    name: str
    title: str
    location: str
    package: str
    extra: str
    modes: Mapping[str, frozenset[Capability]]
    capabilities: frozenset[Capability] = frozenset()
    formats: Mapping[str, Format] = field(default_factory=dict)
    checkpoint_suffixes: tuple[str, ...] = ()


_TORCH = BackendEntry(
    name="torch",
    title="PyTorch",
    location="maam.torch.backend:BACKEND",
    package="torch",
    extra="torch",
    modes={
        "torch": frozenset({Capability.SINGLE_LAYERS}),
        "torch compiled": frozenset({Capability.COMPILED, Capability.LONG_SERIAL_SUMS}),
    },
    capabilities=frozenset(
        {
            Capability.TRAINING,
            Capability.PORTING,
            Capability.CHECKPOINTS,
            Capability.EXPORT,
            Capability.GRADIENT_REFERENCE,
        }
    ),
    formats={
        "onnx": Format(".onnx", _ONNX, engine="onnx"),
        "openvino": Format(".xml", (*_ONNX, ("openvino", "deploy")), (".bin",), engine="openvino"),
        "pt2": Format(".pt2", (("torch", "torch"),)),
        "executorch": Format(
            ".pte", (("torch", "torch"), ("executorch", "executorch")), (".pte.json",), free_size=False
        ),
    },
    checkpoint_suffixes=(".pth", ".pt", ".pth.tar"),
)
_MINDSPORE = BackendEntry(
    name="mindspore",
    title="MindSpore",
    location="maam.mindspore.backend:BACKEND",
    package="mindspore",
    extra="mindspore",
    modes={
        "mindspore graph": frozenset(
            {Capability.COMPILED, Capability.SINGLE_LAYERS, Capability.COSTLY_LAYERS, Capability.SERIAL_SUMS}
        ),
        "mindspore pynative": frozenset({Capability.SINGLE_LAYERS, Capability.SERIAL_SUMS}),
    },
    capabilities=frozenset({Capability.TRAINING, Capability.PORTING, Capability.CHECKPOINTS, Capability.EXPORT}),
    formats={
        "air": Format(".air", (("mindspore", "mindspore"),), (".air.json",), readable=False, free_size=False),
        "mindir": Format(".mindir", (("mindspore", "mindspore"),), (".mindir.json",)),
    },
    checkpoint_suffixes=(".ckpt",),
)
_REFERENCE = BackendEntry(
    name="reference",
    title="NumPy",
    location="maam.backend.reference:BACKEND",
    package="numpy",
    extra="",
    modes={"reference": frozenset({Capability.SINGLE_LAYERS})},
)
_ENTRIES = {entry.name: entry for entry in (_TORCH, _MINDSPORE, _REFERENCE)}


def register(entry: BackendEntry) -> None:
    """Add a backend to the registry.

    Raises:
        SpecError: the name is taken, or the entry has no mode.

    Example:
        >>> from maam.backend import BackendEntry, backend_names, register, unregister
        >>> register(BackendEntry("mine", "Mine", "my_package:BACKEND", "my_package", "", {"mine": frozenset()}))
        >>> backend_names()
        ['torch', 'mindspore', 'reference', 'mine']
        >>> unregister("mine")
    """
    if entry.name in _ENTRIES:
        raise SpecError(f"backend {entry.name!r} is already registered; choose another name")
    if not entry.modes:
        raise SpecError(f"backend {entry.name!r}: modes is empty; name at least one mode")
    _ENTRIES[entry.name] = entry


def unregister(name: str) -> None:
    """Remove a backend that `register` added.

    Raises:
        SpecError: there is no backend of that name.

    Example:
        >>> from maam.backend import BackendEntry, backend_names, register, unregister
        >>> register(BackendEntry("mine", "Mine", "my_package:BACKEND", "my_package", "", {"mine": frozenset()}))
        >>> unregister("mine")
        >>> "mine" in backend_names()
        False
    """
    find_entry(name)
    del _ENTRIES[name]


def backend_names(*needs: Capability) -> list[str]:
    """Return the names of the registered backends that have all the capabilities `needs`, installed or not.

    Example:
        >>> from maam.backend import Capability, backend_names
        >>> backend_names(Capability.TRAINING)
        ['torch', 'mindspore']
    """
    return [entry.name for entry in _ENTRIES.values() if entry.capabilities.issuperset(needs)]


def trainable_names() -> list[str]:
    """Return the names of the backends that train."""
    return backend_names(Capability.TRAINING)


def find_entry(name: object, *needs: Capability) -> BackendEntry:
    """Return the entry of the backend `name`, which must have the capabilities `needs`.

    Raises:
        SpecError: there is no such backend, or it lacks a capability.

    Example:
        >>> from maam.backend import find_entry
        >>> find_entry("mindspore").title
        'MindSpore'
    """
    known = backend_names(*needs)
    if name not in known:
        hint = f"; {name} cannot be used for {needs[0].value}" if needs and name in _ENTRIES else _near(name, known)
        raise SpecError(f"framework: expected one of {', '.join(known)}, got {str(name)[:60]!r}{hint}")
    return _ENTRIES[str(name)]


def _near(name: object, known: list[str]) -> str:
    """Return the end of a message: the backend with the title or a similar name, or ""."""
    titles = {_ENTRIES[one].title.lower(): one for one in known}
    close = titles.get(str(name).lower())
    hint = f"did you mean {close!r}?" if close else suggestion(name, known)
    return f"; {hint}" if hint else ""


def is_installed(name: str) -> bool:
    """Return whether the package of a backend is installed; nothing is imported.

    Example:
        >>> from maam.backend import is_installed
        >>> is_installed("reference")
        True
    """
    try:
        require(find_entry(name).package, "")
    except MissingFrameworkError:
        return False
    return True


def find_owner(model: object) -> str | None:
    """Return the name of the backend whose framework defines the class of a model; None if there is none.

    Example:
        >>> from maam import reference
        >>> from maam.backend.registry import find_owner
        >>> find_owner(reference.build("maam_digits")), find_owner("maam_digits")
        ('reference', None)
    """
    modules = [base.__module__ for base in type(model).__mro__]
    for entry in _ENTRIES.values():
        if any(module.split(".")[0] == entry.package for module in modules):
            return entry.name
    return "reference" if any(module.startswith("maam.reference.") for module in modules) else None


def load_backend(name: str, *needs: Capability) -> Backend:
    """Import a backend and return it.

    Args:
        name: the name that it is registered under.
        needs: the capabilities that it must have.

    Raises:
        SpecError: there is no such backend, or it lacks a capability.
        MissingFrameworkError: its package is not installed; the message names the extra.

    Example:
        >>> from maam import preset
        >>> from maam.backend import load_backend
        >>> backend = load_backend("reference")
        >>> model = backend.build("maam_digits", seed=0)
        >>> backend.make_runner(model).spec == preset("maam_digits")
        True
    """
    entry = find_entry(name, *needs)
    require(entry.package, entry.extra)
    module, _, attribute = entry.location.partition(":")
    return cast(Backend, getattr(_import(module), attribute))


def _import(module: str) -> ModuleType:
    """Import a module. An interruption waits for its end: inside an extension module it becomes an ImportError."""
    with Deferred() as signals:
        found = importlib.import_module(module)
    if signals.number:
        signals.end()
    return found


def load_training_backend(name: str) -> TrainingBackend:
    """Import a backend that trains; errors are those of `load_backend`."""
    return cast(TrainingBackend, load_backend(name, Capability.TRAINING))


def load_porting_backend(name: str) -> PortingBackend:
    """Import a backend that adapts models that maam did not build; errors are those of `load_backend`."""
    return cast(PortingBackend, load_backend(name, Capability.PORTING))


def load_checkpoint_backend(name: str) -> CheckpointBackend:
    """Import a backend that reads and writes checkpoint files; errors are those of `load_backend`."""
    return cast(CheckpointBackend, load_backend(name, Capability.CHECKPOINTS))


def load_export_backend(name: str) -> ExportBackend:
    """Import a backend that exports models; errors are those of `load_backend`."""
    return cast(ExportBackend, load_backend(name, Capability.EXPORT))


def load_gradient_reference() -> GradientReferenceBackend | None:
    """Import the backend that gradients are compared with; return None if it is not installed."""
    for name in backend_names(Capability.GRADIENT_REFERENCE):
        if is_installed(name):
            return cast(GradientReferenceBackend, load_backend(name))
    return None


def checkpoint_suffixes() -> dict[str, str]:
    """Return the suffixes of checkpoint files, each with the name of the backend that reads them."""
    return {suffix: entry.name for entry in _ENTRIES.values() for suffix in entry.checkpoint_suffixes}


def export_formats() -> dict[str, tuple[Format, str]]:
    """Return the formats of exported models by name, each with the name of the backend that writes them."""
    return {name: (one, entry.name) for entry in _ENTRIES.values() for name, one in entry.formats.items()}


def make_runners(
    spec: Node, arrays: Mapping[str, Array], frameworks: Iterable[str] | None = None, *, compiled: bool = True
) -> tuple[list[Runner], dict[str, str]]:
    """Build a model for each mode of each framework, and return their runners.

    Args:
        spec: the architecture.
        arrays: the weights by canonical name.
        frameworks: the names of backends, or one name. None: all backends that train.
        compiled: whether to include further modes that compile the whole model, such as "torch compiled". The default
            mode of a backend is always included.

    Returns:
        The runners, and the reason for each mode that is not available, by the mode's name.

    Raises:
        SpecError: a framework's name is unknown.

    Example:
        >>> from maam import preset
        >>> from maam.backend import make_runners
        >>> from maam.spec import draw
        >>> spec = preset("maam_digits")
        >>> runners, missing = make_runners(spec, draw(spec.parameters(), seed=0), ["reference"])
        >>> [runner.name for runner in runners], missing
        (['reference'], {})
    """
    names = trainable_names() if frameworks is None else [frameworks] if isinstance(frameworks, str) else frameworks
    runners: list[Runner] = []
    missing: dict[str, str] = {}
    for name in names:
        entry = find_entry(name)
        try:
            backend = load_backend(name)
        except MissingFrameworkError as error:
            missing |= dict.fromkeys(entry.modes, str(error))
            continue
        for index, mode in enumerate(entry.modes):
            if compiled or index == 0 or Capability.COMPILED not in entry.modes[mode]:
                runners.append(backend.make_runner(backend.build(spec), mode))
                runners[-1].write_arrays(arrays)
    return runners, missing


def make_double(spec: Node, arrays: Mapping[str, Array]) -> Runner | None:
    """Return a float64 runner of the gradient reference, or None if its backend is not installed."""
    reference = load_gradient_reference()
    if reference is None:
        return None
    return reference.make_runner(reference.build(spec)).clone_with(spec, arrays, "float64")
