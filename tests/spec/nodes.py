"""Short ways to write specs: `chain(conv(3, 4), RELU)`, or with names `chain(conv1=conv(3, 4), act=RELU)`."""

from typing import Literal

from maam import spec
from maam.spec.fields import Flag, Size

IDENTITY, FLATTEN, POOL = spec.Identity(), spec.Flatten(), spec.GlobalPool()


def act(function):
    return spec.Activation(function=function)


RELU, SIGMOID = act("relu"), act("sigmoid")


def conv(in_channels=4, out_channels=4, kernel_size=3, **fields):
    """Return a convolution that keeps the size of a map, if no field says otherwise."""
    fields = {"padding": kernel_size // 2, **fields}
    return spec.Conv2d(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size, **fields)


def linear(in_features, out_features=2, **fields):
    return spec.Linear(in_features=in_features, out_features=out_features, **fields)


def norm(num_features=4, **fields):
    return spec.BatchNorm2d(num_features=num_features, **fields)


def chain(*numbered, **named):
    return spec.Sequential(children={str(index): node for index, node in enumerate(numbered)} | named)


def residual(**children):
    return spec.Residual(children=children)


def model(shape, **children):
    return spec.Model(name="small", input_shape=shape, children=children)


def graph(formula, **children):
    """Return a graph; its formula may use the arrays `weight` and `bias` of 4 channels."""
    arrays = {name: ((4, 1, 1), 2.0) for name in ("weight", "bias") if name in formula}
    return spec.Graph(children=children, formula=formula, arrays=arrays)


Gate = Literal["sigmoid", "hard_sigmoid"]


@spec.composite
def squeeze(channels: Size, reduction: Size = 4, *, gate_layer: Gate = "sigmoid", bias: Flag = True) -> spec.Scale:
    """Return squeeze and excitation: x * gate(conv(relu(conv(pool(x)))))."""
    hidden = max(channels // reduction, 1)
    reduce, expand = conv(channels, hidden, 1, bias=bias), conv(hidden, channels, 1, bias=bias)
    children = {"pool": POOL, "reduce": reduce, "act": RELU, "expand": expand}
    return spec.Scale(children={**children, "gate": act(gate_layer)})
