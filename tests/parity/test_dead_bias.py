"""A bias in front of a batch norm has no gradient: what rounding makes of it is no difference, a real one is."""

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_double, make_runners
from maam.parity import check
from maam.parity.kinks import NOISE_MARGIN, ZERO_MARGIN, Reference
from maam.parity.subject import Subject

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


def test_its_gradient_is_credited_more_noise_than_one_that_is_there():
    arrays = spec.draw(NODE.parameters(), 0)
    images = np.random.default_rng(1).random((8, 3, 6, 6)).astype(np.float32)
    subject = Subject(NODE, arrays, images, np.zeros(8, np.int32), [], double=make_double(NODE, arrays))
    reference = Reference(subject, arrays, subject.batch(0)[0], subject.cotangent(0))
    for name, margin in (("narrow.bn.bias", ZERO_MARGIN), ("wide.bn.bias", NOISE_MARGIN)):
        assert reference.noise[name] > 0
        assert reference.credit(name) == pytest.approx(margin * reference.noise[name])
        assert reference.credit(name, 2.0) == pytest.approx(2 * margin * reference.noise[name])
        assert reference.credit(name, 1e9, most=10) == pytest.approx(10 * reference.credit(name, 1e9))
