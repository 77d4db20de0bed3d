"""The head of a classifier: the last layer, which computes the logits."""

from __future__ import annotations

from maam.errors import SpecError
from maam.spec.containers import Model, Sequential
from maam.spec.node import Node, with_layer
from maam.spec.primitives import BatchNorm2d, Conv2d, Linear


def head(model: Node) -> str:
    """Return the path of the layer that computes the logits: the last linear layer or convolution.

    Raises:
        SpecError: `model` is not a classifier, or its last layer with parameters does not compute the logits.

    Example:
        >>> from maam import spec
        >>> spec.head(spec.preset("maam_cifar10"))
        'classifier.fc2'
    """
    if not isinstance(model, Model) or len(model.output_shape(model.input_shape)) != 1:
        shape = model.output_shape(model.input_shape) if isinstance(model, Model) else None
        found = f"output shape {shape}" if shape else f"an object of type {type(model).__name__}"
        raise SpecError(
            f"expected a classifier, a model whose output is a vector of logits (num_classes,), got {found}"
        )
    paths = [path for path, node in model.walk() if isinstance(node, (BatchNorm2d, Conv2d, Linear))]
    if not paths or _size(model.at(paths[-1])) != model.num_classes:
        raise SpecError(
            f"{model.name}: the last layer with parameters does not compute the logits; "
            "expected a linear layer or convolution with num_classes outputs"
        )
    return paths[-1]


def with_num_classes(model: Node, num_classes: int) -> Model:
    """Return a classifier with another number of classes; only its last layer differs.

    Args:
        model: a classifier.
        num_classes: the number of classes.

    Raises:
        SpecError: `num_classes` is not an integer of at least 1, or `model` is not a classifier.

    Example:
        >>> from maam import spec
        >>> spec.with_num_classes(spec.preset("maam_cifar10"), 100).num_classes
        100
    """
    path = head(model)
    layer = model.at(path)
    field = "out_channels" if isinstance(layer, Conv2d) else "out_features"
    _check_chain(model, path)
    changed = with_layer(model, path, layer.replace(**{field: num_classes}))
    assert isinstance(changed, Model)
    return changed


def _size(layer: Node) -> int:
    return layer.out_channels if isinstance(layer, Conv2d) else layer.out_features if isinstance(layer, Linear) else 0


def _check_chain(node: Node, path: str) -> None:
    """Raise `SpecError` if a container above the layer at a path is not a chain."""
    for name in path.split("."):
        if not isinstance(node, Sequential):
            raise SpecError(f"the last layer is inside a {node.kind}; expected a chain of layers")
        node = node.nodes[name]
