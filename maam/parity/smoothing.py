"""A spec with smooth activations in place of those that have kinks: what is left of a difference is no kink's doing."""

from __future__ import annotations

from maam.spec import Activation, Node

SMOOTH = {
    "relu": "silu",
    "relu6": "silu",
    "leaky_relu": "silu",
    "hard_swish": "silu",
    "hard_sigmoid": "sigmoid",
}
"""The smooth function that takes the place of each activation with a kink."""


def smoothed(spec: Node) -> Node:
    """`spec` with `SMOOTH` activations; layers, shapes and canonical names stay."""
    if isinstance(spec, Activation):
        return spec.replace(function=SMOOTH.get(spec.function, spec.function))
    return spec.with_nodes({name: smoothed(node) for name, node in spec.nodes.items()}) if spec.nodes else spec
