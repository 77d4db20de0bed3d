"""The input shape that a command takes for a model."""

from __future__ import annotations

from maam.spec import Model, Node, input_rule


def input_shape(spec: Node, size: int) -> tuple[int, ...]:
    """The input shape (C, H, W) that a model names; for a layer `size` stands for height and width.

    It is (features,) for a layer that takes vectors alone.
    """
    if isinstance(spec, Model):
        return spec.input_shape
    channels = input_rule(spec).channels or 3
    return (channels,) if input_rule(spec).rank == 2 else (channels, size, size)
