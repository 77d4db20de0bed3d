"""The runners that can be made here: each framework in each of its modes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from maam.backend.protocol import Runner
from maam.errors import MissingFrameworkError, SpecError, require
from maam.spec import Node

FRAMEWORKS = ("torch", "mindspore")
REFERENCE = "reference"
"""Evaluates, and does not train."""


def check_framework(framework: str, known: tuple[str, ...] = FRAMEWORKS) -> None:
    """Refuse a name that is not among the `known`.

    Raises:
        SpecError: it is not.
    """
    if framework not in known:
        hint = "; the reference evaluates alone" if framework == REFERENCE else ""
        raise SpecError(f"framework: expected one of {', '.join(known)}, got {framework[:60]!r}{hint}")


def find_room(framework: str) -> Any:
    """The `devices` module of a framework's room: what selects a device, and makes runners on it.

    Raises:
        SpecError: the framework's name is unknown.
        MissingFrameworkError: it is not installed.
    """
    check_framework(framework)
    require(framework, framework)
    return importlib.import_module(f"maam.{framework}.devices")


Array = np.ndarray[Any, Any]
MODES = {"torch": ("torch", "torch compiled"), "mindspore": ("mindspore graph", "mindspore pynative")}


def make_runners(
    spec: Node, arrays: Mapping[str, Array], frameworks: Iterable[str] = tuple(MODES), *, compiled: bool = True
) -> tuple[list[Runner], dict[str, str]]:
    """A runner with its own model for each framework and mode, and the reason for each that cannot be made.

    `compiled` False leaves torch.compile out.

    Raises:
        SpecError: a framework's name is unknown.
    """
    runners: list[Runner] = []
    missing: dict[str, str] = {}
    for framework in [frameworks] if isinstance(frameworks, str) else frameworks:
        if framework not in MODES:
            raise SpecError(f"framework: expected one of {', '.join(MODES)}, got {framework!r}")
        try:
            require(framework, framework)
        except MissingFrameworkError as error:
            missing |= {name: str(error) for name in MODES[framework]}
            continue
        runners.extend(
            runner for runner in _MAKERS[framework](spec, arrays) if compiled or "compiled" not in runner.name
        )
    return runners, missing


def make_double(spec: Node, arrays: Mapping[str, Array]) -> Runner | None:
    """A float64 PyTorch runner; None where PyTorch is not installed."""
    try:
        require("torch", "torch")
    except MissingFrameworkError:
        return None
    return _torch(spec, arrays)[0].sibling(spec, arrays, "float64")


def kink_module() -> Any:
    """`maam.torch.kinks`, which looks into the float64 runner's model."""
    return importlib.import_module("maam.torch.kinks")


def _torch(spec: Node, arrays: Mapping[str, Array]) -> list[Runner]:
    room, module = importlib.import_module("maam.torch"), importlib.import_module("maam.torch.runner")
    runners = [module.Runner(room.build(spec), compiled=compiled) for compiled in (False, True)]
    return _filled(runners, arrays)


def _mindspore(spec: Node, arrays: Mapping[str, Array]) -> list[Runner]:
    room, module = importlib.import_module("maam.mindspore"), importlib.import_module("maam.mindspore.runner")
    runners = [module.Runner(room.build(spec), graph=graph) for graph in (True, False)]
    return _filled(runners, arrays)


def _filled(runners: list[Runner], arrays: Mapping[str, Array]) -> list[Runner]:
    for runner in runners:
        runner.write_arrays(arrays)
    return runners


_MAKERS: dict[str, Callable[[Node, Mapping[str, Array]], list[Runner]]] = {"torch": _torch, "mindspore": _mindspore}
