"""What an exported model says of itself: how images become its input, and what its outputs stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maam.errors import DeploymentError
from maam.spec import InputRule, Model, Node, input_rule, parse_json

Shape = tuple[int, ...]


def make_metadata(
    spec: Node,
    shape: Shape,
    *,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> dict[str, str]:
    """Metadata as strings under names that start with `maam.`: name, version, spec, preprocessing, class names.

    Args:
        spec: what was exported, after fusion.
        shape: of one input, (C, H, W) or (features,).
        class_names: one for each output.
        mean: for each channel, subtracted from the pixels in [0, 1]; None: nothing is.
        std: for each channel, by which they are divided then; None: by nothing.

    Raises:
        DeploymentError: the names are no list of as many strings as there are outputs, or `check_preprocessing`
            refuses mean or std.
    """
    output = spec.output_shape(shape)
    names = _names(class_names)
    if names is not None and (len(output) != 1 or len(names) != output[0]):
        raise DeploymentError(f"class_names: expected {output[0]} names, one for each output, got {len(names)}")
    means, deviations = check_preprocessing(shape, mean, std)
    found = {
        "maam.name": spec.name if isinstance(spec, Model) else spec.kind,
        "maam.spec": spec.to_json(),
        "maam.preprocessing": json.dumps(_preprocessing(shape, means, deviations)),
    }
    return found if names is None else {**found, "maam.class_names": json.dumps(names)}


def exported_rule(metadata: Mapping[str, str]) -> InputRule | None:
    """What an exported file takes, of the one size that it was written for; None where it names no spec of ours.

    Raises:
        SpecError: the spec is broken, or of a later version.
        KeyError, TypeError, ValueError: what else is needed is absent or broken.
    """
    if "maam.spec" not in metadata:
        return None
    rule = input_rule(parse_json(metadata["maam.spec"]))
    described = json.loads(metadata["maam.preprocessing"])
    if "size" not in described:
        return rule
    height, width = described["size"]
    return rule._replace(rank=4, channels=len(described["mean"]), size=(height, width))


def check_preprocessing(
    shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[list[float] | None, list[float] | None]:
    """Mean and deviation as plain numbers, by which inputs of `shape`, (C, H, W) or (features,), can be normalised.

    Raises:
        DeploymentError: one is no sequence of numbers, there are not as many as channels, one is not finite, or a
            deviation is not positive.
    """
    means, deviations = (_numbers(name, values, shape[0]) for name, values in (("mean", mean), ("std", std)))
    if deviations is not None and min(deviations) <= 0:
        raise DeploymentError(f"std: expected positive values, got {min(deviations)}")
    return means, deviations


def _numbers(name: str, values: Any, count: int) -> list[float] | None:
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


def _names(names: Any) -> list[str] | None:
    """The class names as a list; a string is no list of letters."""
    if names is None:
        return None
    given = None if isinstance(names, (str, bytes)) or not isinstance(names, Iterable) else list(names)
    if given is None or not all(isinstance(name, str) for name in given):
        raise DeploymentError(f"class_names: expected a list of strings, got {str(names)[:60]!r}")
    return [str(name) for name in given]


def _preprocessing(shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None) -> dict[str, Any]:
    """In this order: resize, scale the pixels to [0, 1], subtract the mean, divide by std."""
    if len(shape) != 3:
        return {"layout": "NF", "dtype": "float32"}
    colours = {1: "grey", 3: "RGB"}.get(shape[0], f"{shape[0]} channels")
    return {
        "layout": "NCHW",
        "dtype": "float32",
        "channels": colours,
        "size": list(shape[1:]),
        "range": [0, 1],
        "mean": list(mean or [0.0] * shape[0]),
        "std": list(std or [1.0] * shape[0]),
    }
