"""Attention modules for image classification in PyTorch and MindSpore, from one specification.

Submodules such as `maam.torch`, `maam.mindspore` and `maam.reference` are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers; the same names as in _NAMES
    from maam import backend as backend
    from maam import data as data
    from maam import deploy as deploy
    from maam import errors as errors
    from maam import fusion as fusion
    from maam import mindcv as mindcv
    from maam import mindspore as mindspore
    from maam import parity as parity
    from maam import plots as plots
    from maam import porting as porting
    from maam import reference as reference
    from maam import spec as spec
    from maam import timm as timm
    from maam import torch as torch
    from maam import torchvision as torchvision
    from maam import training as training
    from maam import weights as weights
    from maam.backend.convert import convert as convert
    from maam.deploy import export as export
    from maam.deploy import fuse as fuse
    from maam.errors import ArgumentError as ArgumentError
    from maam.errors import DataError as DataError
    from maam.errors import DeploymentError as DeploymentError
    from maam.errors import DeviceError as DeviceError
    from maam.errors import MaamError as MaamError
    from maam.errors import MissingFrameworkError as MissingFrameworkError
    from maam.errors import OptionError as OptionError
    from maam.errors import PortingError as PortingError
    from maam.errors import PresetError as PresetError
    from maam.errors import RecipeError as RecipeError
    from maam.errors import ShapeError as ShapeError
    from maam.errors import SpecError as SpecError
    from maam.errors import TrainingError as TrainingError
    from maam.errors import WeightsError as WeightsError
    from maam.porting import port as port
    from maam.spec import list_presets as list_presets
    from maam.spec import preset as preset
    from maam.spec import register_preset as register_preset

_NAMES = {
    "maam": (
        "backend",
        "data",
        "deploy",
        "errors",
        "fusion",
        "mindcv",
        "mindspore",
        "parity",
        "plots",
        "porting",
        "reference",
        "spec",
        "timm",
        "torch",
        "torchvision",
        "training",
        "weights",
    ),
    "maam.backend.convert": ("convert",),
    "maam.errors": (
        "ArgumentError",
        "DataError",
        "DeploymentError",
        "DeviceError",
        "MaamError",
        "MissingFrameworkError",
        "OptionError",
        "PortingError",
        "PresetError",
        "RecipeError",
        "ShapeError",
        "SpecError",
        "TrainingError",
        "WeightsError",
    ),
    "maam.deploy": ("export", "fuse"),
    "maam.porting": ("port",),
    "maam.spec": (
        "list_presets",
        "preset",
        "register_preset",
    ),
}
"""The public names of each module."""
_HOMES = {name: home for home, names in _NAMES.items() for name in names}
_IN_BACKENDS = """
AgentAttention BAM CBAM CoordAttention ECA EMA ESE GC GCT GE LKA MAAM MAF MAFB MAFC MRAP SE SGE SK ScSE ShuffleAttention
SimAM SoftmaxAttention TripletAttention VANAttention build load load_weights save_weights
"""
_ELSEWHERE = {
    **{name: f"maam.torch.{name} or maam.mindspore.{name}" for name in _IN_BACKENDS.split()},
    "check": "maam.parity.check",
    "configure": "maam.mindspore.configure",
    "create_model": "maam.timm.create_model, maam.torchvision.create_model or maam.mindcv.create_model",
    "evaluate_file": "maam.training.evaluate_file",
    "insert_attention": "maam.torch.insert_attention, maam.mindspore.insert_attention, maam.timm.insert_attention, "
    "maam.torchvision.insert_attention or maam.mindcv.insert_attention",
    "list_recipes": "maam.training.list_recipes",
    "optimize": "maam.torch.optimize",
    "predict_files": "maam.training.predict_files",
    "prune": "maam.deploy.prune",
    "quantize": "maam.deploy.quantize",
    "train": "maam.training.train",
}
"""Names that people may look for in maam, and where to find them."""

__version__ = "0.1.0"
__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name in _ELSEWHERE:
        raise AttributeError(f"module 'maam' has no attribute {name!r}; use {_ELSEWHERE[name]}")
    if name not in _HOMES:
        raise AttributeError(f"module 'maam' has no attribute {name!r}")
    home = _HOMES[name]
    return importlib.import_module(f"maam.{name}") if home == "maam" else getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
