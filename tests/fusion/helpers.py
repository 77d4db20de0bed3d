"""Specs to fuse, arrays without trivial values, and images."""

from typing import get_args

import numpy as np

from maam import spec
from maam.spec.primitives import ElementwiseName
from tests.parity import models

PRESETS = [name for name in spec.list_presets() if name not in ("cnn", "mlp", "rnn")]
BRANCHES = {"kernel_sizes": (3, 1, 3), "scales": (1, 1, 2), "pool": (1, 2)}
LAYERS = {
    f"{act}-{fusion}": spec.maam(4, 6, act_layer=act, fusion=fusion, **BRANCHES)
    for act, fusion in [*((a, "softmax") for a in get_args(ElementwiseName)), ("relu", "dynamic"), ("gelu", "dynamic")]
}
"""The layer with each activation and different branches, with constant and dynamic weights."""


def small(name):
    if name.startswith(("mafc", "mobilenet")):
        return spec.preset(name, cifar=True, width_multiplier=0.1)
    if name == "maam_imagenet":
        return spec.preset(name, channels=(8, 8, 16, 16), image_size=32)
    narrow = {"channels": 8, "hidden_channels": 4, "hidden_features": 16}
    return spec.preset(name, **{key: value for key, value in narrow.items() if key in spec.preset_options(name)})


def scrambled(node, dtype=np.float32):
    return {name: array.astype(dtype) for name, array in models.scrambled(node).items()}


def images(shape, count=3, dtype=np.float32):
    return np.random.default_rng(1).normal(size=(count, *shape)).astype(dtype)
