"""What an exported model says of itself: how images become its input, and what its outputs stand for."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
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
        DeploymentError: there are not as many names as outputs, or `check_preprocessing` refuses mean or std.
    """
    output = spec.output_shape(shape)
    if class_names is not None and (len(output) != 1 or len(class_names) != output[0]):
        raise DeploymentError(f"class_names: expected {output[0]} names, one for each output, got {len(class_names)}")
    check_preprocessing(shape, mean, std)
    found = {
        "maam.name": spec.name if isinstance(spec, Model) else spec.kind,
        "maam.spec": spec.to_json(),
        "maam.preprocessing": json.dumps(_preprocessing(shape, mean, std)),
    }
    return found if class_names is None else {**found, "maam.class_names": json.dumps(list(class_names))}


def exported_rule(metadata: Mapping[str, str]) -> InputRule | None:
    """What an exported file takes, of the one size that it was written for; None where it names no spec of ours.

    Raises:
        SpecError: the spec is broken.
    """
    if "maam.spec" not in metadata:
        return None
    rule = input_rule(parse_json(metadata["maam.spec"]))
    described = json.loads(metadata["maam.preprocessing"])
    if "size" not in described:
        return rule
    height, width = described["size"]
    return rule._replace(rank=4, channels=len(described["mean"]), size=(height, width))


def check_preprocessing(shape: Shape, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Refuse means and deviations that inputs of `shape`, (C, H, W) or (features,), cannot be normalised by.

    Raises:
        DeploymentError: there are not as many as channels, one is not finite, or a deviation is not positive.
    """
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != shape[0]:
            raise DeploymentError(f"{name}: expected {shape[0]} values, one for each channel, got {len(values)}")
        if wrong := [value for value in values or () if not math.isfinite(value)]:
            raise DeploymentError(f"{name}: expected finite values, got {wrong[0]}")
    if std is not None and min(std) <= 0:
        raise DeploymentError(f"std: expected positive values, got {min(std)}")


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
