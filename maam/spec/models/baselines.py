"""The baselines CNN, MLP and RNN of Table 1 of the MAAM paper."""

from __future__ import annotations

from maam.spec.composites import composite
from maam.spec.containers import Model
from maam.spec.fields import Size
from maam.spec.node import Node
from maam.spec.pooling import MaxPool2d
from maam.spec.presets import register_preset
from maam.spec.primitives import RNN, Activation, Conv2d, Flatten, Linear


@register_preset
@composite
def cnn(num_classes: Size = 10, in_channels: Size = 3, *, image_size: Size = 32) -> Model:
    """Return a network of two 3x3 convolutions (32 and 64 channels) with ReLU and max pooling, and two linear layers.

    This is the baseline CNN in Table 1 of the MAAM paper. The paper does not give its layers; they are our choice.

    Shape:
        (N, in_channels, image_size, image_size) to (N, num_classes).

    Args:
        num_classes: the number of classes, the length of the logits. Default: 10.
        in_channels: the number of channels of the image. Default: 3.
        image_size: height and width of the image in pixels. Default: 32.

    Raises:
        SpecError: an argument is invalid, or the image is too small for the pooling or too large.

    Example:
        >>> from maam import spec
        >>> spec.cnn(num_classes=10).num_parameters
        545098
    """
    side = image_size // 2 // 2
    children: dict[str, Node] = {
        "conv1": Conv2d(in_channels=in_channels, out_channels=32, kernel_size=3, padding=1),
        "act1": Activation(function="relu"),
        "pool1": MaxPool2d(kernel_size=2),
        "conv2": Conv2d(in_channels=32, out_channels=64, kernel_size=3, padding=1),
        "act2": Activation(function="relu"),
        "pool2": MaxPool2d(kernel_size=2),
        "flatten": Flatten(),
        "fc1": Linear(in_features=64 * max(side, 1) ** 2, out_features=128),
        "act3": Activation(function="relu"),
        "fc2": Linear(in_features=128, out_features=num_classes),
    }
    return Model(name="cnn", input_shape=(in_channels, image_size, image_size), children=children)


@register_preset
@composite
def mlp(num_classes: Size = 10, in_channels: Size = 3, *, image_size: Size = 32) -> Model:
    """Return a network of three linear layers on the flattened image, with 512 and 256 hidden units and ReLU.

    This is the baseline MLP in Table 1 of the MAAM paper. The paper does not give its layers; they are our choice.

    Shape:
        (N, in_channels, image_size, image_size) to (N, num_classes).

    Args:
        num_classes: the number of classes, the length of the logits. Default: 10.
        in_channels: the number of channels of the image. Default: 3.
        image_size: height and width of the image in pixels. Default: 32.

    Raises:
        SpecError: an argument is invalid, or the image is too large.

    Example:
        >>> from maam import spec
        >>> spec.mlp(num_classes=10).num_parameters
        1707274
    """
    children: dict[str, Node] = {
        "flatten": Flatten(),
        "fc1": Linear(in_features=in_channels * image_size**2, out_features=512),
        "act1": Activation(function="relu"),
        "fc2": Linear(in_features=512, out_features=256),
        "act2": Activation(function="relu"),
        "fc3": Linear(in_features=256, out_features=num_classes),
    }
    return Model(name="mlp", input_shape=(in_channels, image_size, image_size), children=children)


@register_preset
@composite
def rnn(num_classes: Size = 10, in_channels: Size = 3, *, image_size: Size = 32) -> Model:
    """Return a tanh recurrent layer of 128 units over the rows of the image, and a linear layer on its last state.

    This is the baseline RNN in Table 1 of the MAAM paper. The paper does not give its layers; they are our choice.

    Shape:
        (N, in_channels, image_size, image_size) to (N, num_classes).

    Args:
        num_classes: the number of classes, the length of the logits. Default: 10.
        in_channels: the number of channels of the image. Default: 3.
        image_size: height and width of the image in pixels. Default: 32.

    Raises:
        SpecError: an argument is invalid, or the image is too large.

    Example:
        >>> from maam import spec
        >>> spec.rnn(num_classes=10).num_parameters
        30218
    """
    children: dict[str, Node] = {
        "rnn": RNN(input_size=in_channels * image_size, hidden_size=128),
        "fc": Linear(in_features=128, out_features=num_classes),
    }
    return Model(name="rnn", input_shape=(in_channels, image_size, image_size), children=children)
