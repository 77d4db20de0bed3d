"""Attention modules for image classification, written once, native in PyTorch and MindSpore.

Nothing is imported before it is used: `maam.torch`, `maam.mindspore`, `maam.reference` and the rest load on access.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maam import (
        data,
        exporting,
        fusion,
        mindcv,
        mindspore,
        parity,
        porting,
        reference,
        spec,
        timm,
        torch,
        torchvision,
        training,
        weights,
    )
    from maam.conversion import convert
    from maam.errors import (
        DataError,
        DeploymentError,
        MaamError,
        MissingFrameworkError,
        PortingError,
        PresetError,
        ShapeError,
        SpecError,
        WeightsError,
    )
    from maam.exporting import export
    from maam.fusion import fuse
    from maam.porting import port
    from maam.spec import list_presets, preset, register_preset

_MODULES = (
    "data",
    "exporting",
    "fusion",
    "mindcv",
    "mindspore",
    "parity",
    "porting",
    "reference",
    "spec",
    "timm",
    "torch",
    "torchvision",
    "training",
    "weights",
)
_ERRORS = (
    "DataError",
    "DeploymentError",
    "MaamError",
    "MissingFrameworkError",
    "PortingError",
    "PresetError",
    "ShapeError",
    "SpecError",
    "WeightsError",
)
_FUNCTIONS = {
    "convert": "maam.conversion",
    "export": "maam.exporting",
    "fuse": "maam.fusion",
    "list_presets": "maam.spec",
    "port": "maam.porting",
    "preset": "maam.spec",
    "register_preset": "maam.spec",
    **dict.fromkeys(_ERRORS, "maam.errors"),
}

__version__ = "0.1.0"
__all__ = [
    "DataError",
    "DeploymentError",
    "MaamError",
    "MissingFrameworkError",
    "PortingError",
    "PresetError",
    "ShapeError",
    "SpecError",
    "WeightsError",
    "convert",
    "data",
    "export",
    "exporting",
    "fuse",
    "fusion",
    "list_presets",
    "mindcv",
    "mindspore",
    "parity",
    "port",
    "porting",
    "preset",
    "reference",
    "register_preset",
    "spec",
    "timm",
    "torch",
    "torchvision",
    "training",
    "weights",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"maam.{name}")
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'maam' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
