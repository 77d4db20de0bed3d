"""The primitives: all that a backend has to know."""

from maam.spec.primitives.activation import Activation, ActivationName, ElementwiseName
from maam.spec.primitives.containers import Model, Residual, Resize, Scale, Sequential
from maam.spec.primitives.convolution import Conv2d
from maam.spec.primitives.linear import RNN, Linear
from maam.spec.primitives.normalization import BatchNorm2d
from maam.spec.primitives.parallel import Merge, Parallel
from maam.spec.primitives.pooling import AvgPool2d, GlobalPool, MaxPool2d
from maam.spec.primitives.reshaping import Dropout, Flatten, Identity, Unflatten

__all__ = [
    "RNN",
    "Activation",
    "ActivationName",
    "AvgPool2d",
    "BatchNorm2d",
    "Conv2d",
    "Dropout",
    "ElementwiseName",
    "Flatten",
    "GlobalPool",
    "Identity",
    "Linear",
    "MaxPool2d",
    "Merge",
    "Model",
    "Parallel",
    "Residual",
    "Resize",
    "Scale",
    "Sequential",
    "Unflatten",
]
