"""A bias in front of a batch norm has no gradient: what rounding makes of it is no difference, a real one is."""

import numpy as np
import pytest

from maam import spec
from maam.parity import check
from maam.parity.rooms import make_runners

pytest.importorskip("torch")


def block(given, width, **options):
    conv = spec.Conv2d(in_channels=given, out_channels=width, kernel_size=1, bias=False)
    return {"conv": conv, "bn": spec.BatchNorm2d(num_features=width), **options}


NODE = spec.Model(
    name="linear bottleneck",
    input_shape=(3, 6, 6),
    children={
        "narrow": spec.Sequential(children=block(3, 4)),
        "wide": spec.Sequential(children=block(4, 8, act=spec.Activation(function="silu"))),
        "pool": spec.GlobalPool(),
        "flatten": spec.Flatten(),
        "fc": spec.Linear(in_features=8, out_features=4),
    },
)


class Pushing:
    """A trainer that moves the dead bias by a little."""

    def __init__(self, trainer, size):
        self.inner, self.size = trainer, size

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def step(self, *arguments):
        loss = self.inner.step(*arguments)
        arrays = self.inner.runner.read_arrays()
        self.inner.runner.write_arrays(arrays | {"narrow.bn.bias": arrays["narrow.bn.bias"] + np.float32(self.size)})
        return loss


class Pushed:
    def __init__(self, runner, size):
        self.inner, self.size = runner, size

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def trainer(self, *arguments):
        return Pushing(self.inner.trainer(*arguments), self.size)


@pytest.mark.parametrize(("size", "verdict"), [(0.0, "pass"), (1e-5, "FAIL")])
def test_the_update_by_sgd(size, verdict):
    arrays = spec.draw(NODE.parameters(), 0)
    runners, _ = make_runners(NODE, arrays, ["torch"], compiled=False)
    images = np.random.default_rng(1).random((64, 3, 6, 6)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 4, 64)
    report = check(NODE, images=images, labels=labels, runners=[Pushed(runners[0], size)], stages=["steps"])
    assert next(row for row in report.rows if row.stage == "ten steps, sgd").verdict.value == verdict
