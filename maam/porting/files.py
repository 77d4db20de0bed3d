"""Files of a port: the user's code that makes the models, and the weights that the port writes."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maam.backend.protocol import Capability
from maam.backend.registry import backend_names, find_entry, is_installed, load_porting_backend
from maam.errors import PortingError, WeightsError


def load_factory(name: str) -> Any:
    """Import a function or class, call it without arguments, and return the result; this runs your own code.

    An object that is neither is returned as it is. The working folder is searched too, as with `python -m`.

    Args:
        name: "package.module:callable", or "path/to/file.py:callable".

    Raises:
        PortingError: the name has another form, the module or the callable does not exist, or it fails.

    Example:
        >>> from maam.porting import load_factory
        >>> load_factory("collections:OrderedDict")
        OrderedDict()
    """
    module_name, colon, attribute = name.rpartition(":")
    if not (module_name and colon and attribute):
        raise PortingError(f"{name!r}: expected package.module:callable or file.py:callable, such as my_models:resnet")
    for backend in backend_names(Capability.PORTING):
        if is_installed(backend):  # maam prepares MindSpore, whose first operator fails with NumPy 2 otherwise
            load_porting_backend(backend)
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = _import_file(module_name) if module_name.endswith(".py") else importlib.import_module(module_name)
    except Exception as error:  # the user's module may raise anything
        reason = error if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise PortingError(f"{name}: {module_name} cannot be imported: {reason}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            known = [key for key, value in vars(found).items() if callable(value) and not key.startswith("_")]
            hint = f"; it has {', '.join(known[:6])}" if known else ""
            raise PortingError(f"{name}: {module_name} has no {attribute}{hint}")
        found = getattr(found, part)
    if not (inspect.isroutine(found) or inspect.isclass(found) or isinstance(found, functools.partial)):
        if not callable(found):
            raise PortingError(f"{name}: expected a function or class, got an object of type {type(found).__name__}")
        return found
    try:
        return found()
    except Exception as error:  # the user's function may raise anything
        hint = f"; write a function without arguments that returns {attribute}(...)" if _needs_arguments(found) else ""
        raise PortingError(f"{name}() failed: {type(error).__name__}: {error}{hint}") from error


def _import_file(name: str) -> Any:
    path = Path(name)
    if not path.is_file():
        raise ImportError(f"there is no file {name}")
    if str(path.parent.absolute()) not in sys.path:
        sys.path.insert(0, str(path.parent.absolute()))  # for the modules beside it
    if (loaded := sys.modules.get(path.stem)) and getattr(loaded, "__file__", "") == str(path.absolute()):
        return loaded
    spec = importlib.util.spec_from_file_location(path.stem, path.absolute())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _needs_arguments(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return any(p.default is p.empty and p.kind not in kinds for p in parameters)


def check_suffix(framework: str, path: str | os.PathLike[str]) -> None:
    """Raise `PortingError` unless a framework's weights can be written to a file of this suffix."""
    entry = find_entry(framework)
    known = (*(s for s in entry.checkpoint_suffixes if s.count(".") == 1), ".safetensors")
    if Path(path).suffix not in known:
        raise PortingError(f"--out {path}: expected a file name that ends in {' or '.join(known)} for {entry.title}")


def save_weights(
    framework: str, model: Any, path: str | os.PathLike[str], note: Mapping[str, str] | None = None
) -> str:
    """Write a model's arrays to a file under the framework's own names, so that its users can load them.

    Args:
        framework: "torch" or "mindspore".
        model: your own torch.nn.Module or mindspore.nn.Cell.
        path: the file to write: .safetensors, or .pth for PyTorch, or .ckpt for MindSpore. An existing file is
            replaced only after the new one is complete.
        note: texts for the file's metadata.

    Returns:
        The code that loads the file.

    Raises:
        MissingFrameworkError: the framework is not installed.
        PortingError: `model` is not a model of the framework, or `path` has the suffix of another format.
        WeightsError: the file cannot be written.

    Example:
        >>> import os, tempfile, torch
        >>> from safetensors.numpy import load_file
        >>> from maam.porting import save_weights
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "linear.safetensors")
        ...     code = save_weights("torch", torch.nn.Linear(2, 3), path)
        ...     {name: array.shape for name, array in load_file(path).items()}
        {'bias': (3,), 'weight': (3, 2)}
    """
    check_suffix(framework, path)
    try:
        return load_porting_backend(framework).adapt(model).save(Path(path), note or {})
    except OSError as error:
        raise WeightsError(f"{path}: cannot be written: {error.strerror or error}") from None
