"""Models and weights that the parity tests share."""

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_double, make_runners
from maam.parity.subject import Subject

SIZES = {"channels": 8, "hidden_channels": 4, "hidden_features": 16}
SMALL = spec.preset("maam_digits", **SIZES)
NARROW = {"channels": 4, "hidden_channels": 2, "hidden_features": 8, "num_agents": 2}
TINY = spec.preset("maam_digits", **NARROW)
EAGER = {"torch": "torch", "mindspore": "mindspore pynative"}


def scrambled(node, seed=5):
    """Return arbitrary arrays: with fresh ones (alpha 0, mean 0, variance 1) a lost array would not show."""
    generator = np.random.default_rng(seed)
    arrays = spec.draw(node.parameters(), seed)
    for p in node.parameters():
        if p.role is not spec.Role.WEIGHT:
            low = 0.5 if p.role in (spec.Role.RUNNING_VAR, spec.Role.NORM_WEIGHT) else -0.5
            arrays[p.name] = generator.uniform(low, low + 1, p.shape).astype(np.float32)
    return arrays


def make_runner(framework, node=SMALL, arrays=None):
    pytest.importorskip(framework)
    runners, _ = make_runners(node, scrambled(node) if arrays is None else arrays, [framework], compiled=False)
    return next(runner for runner in runners if runner.name == EAGER[framework])


def fresh_subject(node, shape, count=64, classes=10):
    """Return a subject without runners, with fresh weights and random images of this shape."""
    arrays = spec.draw(node.parameters(), 0)
    images = np.random.default_rng(1).random((count, *shape)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, classes, count)
    return Subject(node, arrays, images, labels, [], double=make_double(node, arrays))


class Wrapper:
    """An object that passes all attributes on to the object inside, but for those that are given."""

    def __init__(self, inner, **changed):
        self.inner = inner
        vars(self).update(changed)

    def __getattr__(self, name):
        return getattr(self.inner, name)
