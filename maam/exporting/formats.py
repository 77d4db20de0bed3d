"""The formats that models are exported to, and reading them back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam.errors import DeploymentError, MaamError, SpecError, require
from maam.exporting.metadata import exported_rule
from maam.spec import InputRule, Node

Array = np.ndarray[Any, Any]
Predict = Callable[[Array], Array]
"""Float32 (N, C, H, W) to the outputs, float32."""


class Format(NamedTuple):
    """A format: its suffix, the files that belong to it besides, the room that writes it, and what that needs.

    `packages` are (package, extra) pairs; `reader` is the module that reads it, by a function `open_<format>`: empty
    for AIR, which nothing runs before Ascend's own compiler has made OM of it.
    """

    suffix: str
    room: str
    reader: str
    packages: tuple[tuple[str, str], ...]
    companions: tuple[str, ...] = ()


_ONNX = (("torch", "torch"), ("onnx", "deploy"), ("onnxscript", "deploy"), ("onnxruntime", "deploy"))
FORMATS = {
    "onnx": Format(".onnx", "torch", "maam.exporting.engines", _ONNX),
    "openvino": Format(".xml", "torch", "maam.exporting.engines", (*_ONNX, ("openvino", "deploy")), (".bin",)),
    "pt2": Format(".pt2", "torch", "maam.torch.exporting", (("torch", "torch"),)),
    "executorch": Format(
        ".pte", "torch", "maam.torch.exporting", (("torch", "torch"), ("executorch", "executorch")), (".pte.json",)
    ),
    "air": Format(".air", "mindspore", "", (("mindspore", "mindspore"),), (".air.json",)),
    "mindir": Format(
        ".mindir", "mindspore", "maam.mindspore.exporting", (("mindspore", "mindspore"),), (".mindir.json",)
    ),
}


def find_format(path: Path, name: str | None = None) -> str:
    """The format called `name`, or told by the suffix of `path`, with all that writing it needs installed.

    Raises:
        DeploymentError: there is no such format, or `path` has the suffix of another.
        MissingFrameworkError: a package that it needs is not installed; the message names the extra.
    """
    name = _named(path, name)
    for package, extra in FORMATS[name].packages:
        require(package, extra)
    return name


def _named(path: Path, name: str | None) -> str:
    if name is None:
        name = next((known for known, one in FORMATS.items() if path.name.endswith(one.suffix)), None)
        if name is None:
            known = ", ".join(f"{one.suffix} ({known})" for known, one in FORMATS.items())
            raise DeploymentError(f"{path}: unknown suffix {path.suffix[:60]!r}; known are {known}")
    if name not in FORMATS:
        raise DeploymentError(f"format: expected one of {', '.join(FORMATS)}, got {name[:60]!r}")
    if not path.name.endswith(FORMATS[name].suffix):
        raise DeploymentError(f"{path}: expected a name that ends in {FORMATS[name].suffix} for format {name}")
    return name


def companions(path: Path, name: str) -> list[Path]:
    """The files that stand beside `path` in a format: weights (`model.bin`), or metadata (`model.mindir.json`)."""
    suffix = FORMATS[name].suffix
    return [path.with_name(path.name.removesuffix(suffix) + other) for other in FORMATS[name].companions]


def write(name: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write a model in the format `name` by the room that knows it, with a free batch; `shape` is of one input."""
    room = import_module(f"maam.{FORMATS[name].room}.exporting")
    getattr(room, f"write_{name}")(path, spec, arrays, shape, metadata)


def open_exported(path: Path | str) -> tuple[Predict, dict[str, str]]:
    """What an exported file computes, as a function of NumPy arrays, and its metadata.

    The function takes (N, C, H, W) of the size that the file was written for, or (N, features), of any floating-point
    dtype, and computes in float32. It raises ShapeError for what the model does not take, where the metadata say it.

    Raises:
        DeploymentError: there is no such file, its suffix is unknown, or it cannot be read.
        MissingFrameworkError: a package that reads it is not installed.
    """
    path = Path(path)
    name = _named(path, None)
    if not path.is_file():
        raise DeploymentError(f"{path}: no such file")
    if not FORMATS[name].reader:
        raise DeploymentError(f"{path}: nothing runs {name} as it is; compile it with atc (docs/ascend.md)")
    reader = getattr(import_module(FORMATS[name].reader), f"open_{name}")
    try:
        predict, metadata = reader(path)
    except MaamError:
        raise
    except Exception as error:  # of many kinds: each engine has its own
        raise DeploymentError(f"{path}: cannot be read as {name}: {' '.join(str(error).split())[:200]}") from None
    rule = _rule(path, metadata)
    return predict if rule is None else _checked(predict, rule), metadata


def _rule(path: Path, metadata: dict[str, str]) -> InputRule | None:
    try:
        return exported_rule(metadata)
    except (SpecError, KeyError, TypeError, ValueError) as error:
        raise DeploymentError(f"{path}: its metadata are none that this version of maam reads: {error}") from None


def _checked(predict: Predict, rule: InputRule) -> Predict:
    def call(x: Array) -> Array:
        array = np.asarray(x)
        rule.check(array.shape, str(array.dtype))
        return predict(array)

    return call


def read_companion(path: Path) -> dict[str, str]:
    """The metadata in a file beside the model, for formats that hold none."""
    return dict(json.loads(Path(f"{path}.json").read_text("utf-8")))
