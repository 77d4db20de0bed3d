"""The metadata of an exported file: its spec, its preprocessing and its class names, and the inputs that it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maam import _documents
from maam.errors import DeploymentError
from maam.spec import InputRule, Model, Node, Shape, input_rule, parse_json


def make_metadata(
    spec: Node,
    shape: Shape,
    *,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dynamic_size: bool = False,
) -> dict[str, str]:
    """Return the metadata of an exported file as strings: maam.name, maam.spec, maam.preprocessing, maam.class_names.

    Args:
        spec: the exported spec, after fusion.
        shape: the shape of one input, (C, H, W) or (features,).
        class_names: one name for each output.
        mean: the mean of each channel, for pixels in [0, 1]; None for 0.
        std: the standard deviation of each channel, for pixels in [0, 1]; None for 1.
        dynamic_size: whether height and width are dynamic.

    Raises:
        DeploymentError: `class_names` is not a list with a string for each output, or `mean` or `std` is invalid.
    """
    output = spec.output_shape(shape)
    names = _check_names(class_names)
    if names is not None and (len(output) != 1 or len(names) != output[0]):
        raise DeploymentError(f"class_names: expected {output[0]} names, one for each output, got {len(names)}")
    means, deviations = check_preprocessing(shape, mean, std)
    found = {
        "maam.name": spec.name if isinstance(spec, Model) else spec.kind,
        "maam.spec": spec.to_json(),
        "maam.preprocessing": json.dumps(
            _preprocessing(shape, means, deviations) | ({"dynamic_size": True} if dynamic_size else {})
        ),
    }
    return found if names is None else {**found, "maam.class_names": json.dumps(names)}


def exported_rule(metadata: Mapping[str, str]) -> InputRule | None:
    """Return the inputs that an exported file takes; None if its metadata has no spec.

    Raises:
        SpecError: the spec is broken, or written by a later version.
        KeyError, TypeError, ValueError: other metadata is missing or broken.
    """
    if "maam.spec" not in metadata:
        return None
    rule = input_rule(parse_json(metadata["maam.spec"]))
    described = _documents.parse_json(metadata["maam.preprocessing"])
    if "size" not in described:
        return rule
    if described.get("dynamic_size"):
        return rule._replace(channels=len(described["mean"]))
    height, width = described["size"]
    return rule._replace(rank=4, channels=len(described["mean"]), size=(height, width))


def check_preprocessing(
    shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and standard deviation as lists of Python numbers, after checking them.

    Args:
        shape: the shape of one input, (C, H, W) or (features,).
        mean: one number for each channel, or None.
        std: one positive number for each channel, or None.

    Raises:
        DeploymentError: there is not one finite number for each channel, or a standard deviation is not positive.
    """
    means, deviations = (_check_numbers(name, values, shape[0]) for name, values in (("mean", mean), ("std", std)))
    if deviations is not None and min(deviations) <= 0:
        raise DeploymentError(f"std: expected positive values, got {min(deviations)}")
    return means, deviations


def _check_numbers(name: str, values: Any, count: int) -> list[float] | None:
    if values is None:
        return None
    expected = f"{name}: expected a list of {count} number{'s' * (count > 1)}, one for each channel"
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        raise DeploymentError(f"{expected}, got {str(values)[:60]!r}") from None
    if len(numbers) != count:
        raise DeploymentError(f"{expected}, got {len(numbers)}")
    if wrong := [number for number in numbers if not math.isfinite(number)]:
        raise DeploymentError(f"{name}: expected finite values, got {wrong[0]}")
    return numbers


def _check_names(names: Any) -> list[str] | None:
    """Return the class names as a list; a single string is an error."""
    if names is None:
        return None
    given = None if isinstance(names, (str, bytes)) or not isinstance(names, Iterable) else list(names)
    if given is None or not all(isinstance(name, str) for name in given):
        raise DeploymentError(f"class_names: expected a list of strings, got {str(names)[:60]!r}")
    return [str(name) for name in given]


def _preprocessing(shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    """Return the description of preprocessing: resize, scale pixels to [0, 1], subtract mean, divide by std."""
    if len(shape) != 3:
        return {"layout": "NF", "dtype": "float32"}
    colors = {1: "gray", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    return {
        "layout": "NCHW",
        "dtype": "float32",
        "channels": colors,
        "size": list(shape[1:]),
        "range": [0, 1],
        "mean": list(mean or [0.0] * shape[0]),
        "std": list(std or [1.0] * shape[0]),
    }
