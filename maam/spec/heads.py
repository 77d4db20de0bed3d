"""The head of a classifier: the layer that gives the logits, and models with another number of classes."""

from __future__ import annotations

from maam.errors import SpecError
from maam.spec.containers import Model, Sequential
from maam.spec.node import Node
from maam.spec.primitives import BatchNorm2d, Conv2d, Linear


def head(model: Node) -> str:
    """The canonical path of the layer that gives the logits: the last linear layer or convolution.

    Raises:
        SpecError: `model` is not a `Model` whose output is a vector that this layer's size decides.
    """
    if not isinstance(model, Model) or len(model.output_shape(model.input_shape)) != 1:
        raise SpecError("expected a model that ends in logits (num_classes,); this one has no classes to replace")
    paths = [path for path, node in model.walk() if isinstance(node, (BatchNorm2d, Conv2d, Linear))]
    if not paths or _size(model.at(paths[-1])) != model.num_classes:
        raise SpecError(f"{model.name}: its last layer with weights does not give the logits, so it has no head")
    return paths[-1]


def with_num_classes(model: Node, num_classes: int) -> Model:
    """`model` with a head of `num_classes` logits; all other layers stay, under their names.

    Raises:
        SpecError: `num_classes` is no integer of at least 1, or `model` has no head.
    """
    path = head(model)
    layer = model.at(path)
    field = "out_channels" if isinstance(layer, Conv2d) else "out_features"
    changed = _replaced(model, path.split("."), layer.replace(**{field: num_classes}))
    assert isinstance(changed, Model)
    return changed


def _size(layer: Node) -> int:
    return layer.out_channels if isinstance(layer, Conv2d) else layer.out_features if isinstance(layer, Linear) else 0


def _replaced(node: Node, names: list[str], layer: Node) -> Node:
    if not names:
        return layer
    if not isinstance(node, Sequential):
        raise SpecError(f"the head stands inside a {node.kind}; expected a chain of layers")
    children = dict(node.children)
    children[names[0]] = _replaced(children[names[0]], names[1:], layer)
    return node.replace(children=children)
