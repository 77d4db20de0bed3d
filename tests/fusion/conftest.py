"""Specs to fuse."""

from typing import get_args

import pytest

from maam import spec
from maam.spec.primitives import ElementwiseName
from tests.fusion.helpers import small

ACTIVATIONS = get_args(ElementwiseName)
PRESETS = [name for name in spec.list_presets() if name not in ("cnn", "mlp", "rnn")]


@pytest.fixture(params=PRESETS)
def network(request):
    """Return each preset with something to fuse, in a small size."""
    return small(request.param)


@pytest.fixture(
    params=[*((name, "softmax") for name in ACTIVATIONS), ("relu", "dynamic"), ("gelu", "dynamic")], ids="-".join
)
def layer(request):
    """Return the layer with each activation and different branches, with constant and dynamic weights."""
    act, fusion = request.param
    return spec.maam(4, 6, act_layer=act, fusion=fusion, kernel_sizes=(3, 1, 3), scales=(1, 1, 2), pool=(1, 2))
