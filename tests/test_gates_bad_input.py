"""What gates and MobileNets say of bad input, and what they do with odd input: the same in both frameworks."""

from importlib import import_module

import numpy as np
import pytest

from maam import spec
from maam.errors import MaamError, ShapeError, SpecError

GATES = ("MAF", "MAFC", "MAFB", "SE", "CBAM")
WITH_NORM = ("MAFC", "MAFB", "CBAM")


class Framework:
    """A framework's layers, driven by NumPy arrays."""

    def __init__(self, name):
        self.native = pytest.importorskip(name)
        self.room = import_module(f"maam.{name}")
        self.name = name

    def run(self, layer, x, training=False):
        if self.name == "mindspore":
            layer.set_train(training)
            return layer(self.native.Tensor(x)).asnumpy()
        layer.train(training)
        return layer(self.native.from_numpy(x)).detach().numpy()

    def arrays(self, layer):
        return import_module(f"maam.{self.name}.arrays").read_arrays(layer)


@pytest.fixture(params=["torch", "mindspore"])
def framework(request):
    return Framework(request.param)


def maps(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["MAF", "MAFC", "MAFB"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool_types": ("avg", "median")}, "pool_types.1: input should be 'avg', 'std' or 'max', got 'median'"),
        ({"pool_types": ("std", "avg", "std")}, "pool_types: expected each statistic at most once, got std, avg, std"),
        ({"pool_types": ()}, "pool_types: expected at least one of avg, std, max"),
        ({"pool_types": 5}, "pool_types: expected a list or a tuple, got 5"),
        ({"rd_ratio": 2.0}, "rd_ratio: input should be less than or equal to 1"),
        ({"rd_channels": 0}, "rd_channels: input should be greater than or equal to 1"),
    ],
)
def test_wrong_arguments(framework, name, arguments, message):
    with pytest.raises(SpecError) as caught:
        getattr(framework.room, name)(16, **arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("channels", [0, -1, 2.5, "16", None])
def test_wrong_channels(framework, name, channels):
    with pytest.raises(SpecError, match=rf"^{name.lower()}: channels: input should be "):
        getattr(framework.room, name)(channels)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("channels", [1, 3, 15])
def test_fewer_channels_than_the_reduction(framework, name, channels):
    """The perceptron then has a width of 1."""
    layer = getattr(framework.room, name)(channels)
    x = maps((2, channels, 5, 4))
    for training in (False, True):
        y = framework.run(layer, x, training)
        assert y.shape == x.shape
        assert np.isfinite(y).all()


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("shape", [(1, 16, 5, 4), (2, 16, 1, 1), (1, 16, 1, 2)], ids=str)
def test_one_image_and_one_position(framework, name, shape):
    layer = getattr(framework.room, name)(16)
    for training in (False, True):
        assert np.isfinite(framework.run(layer, maps(shape), training)).all()
    assert all(np.isfinite(array).all() for array in framework.arrays(layer).values())


@pytest.mark.parametrize("name", WITH_NORM)
def test_one_image_of_one_position(framework, name):
    """Fine in inference; in training a batch norm has nothing to take a variance of, and is not harmed."""
    layer, x = getattr(framework.room, name)(16), maps((1, 16, 1, 1))
    assert np.isfinite(framework.run(layer, x)).all()
    before = framework.arrays(layer)
    with pytest.raises(ShapeError, match=r"expected more than 1 value per channel when training, got .*; use a larger"):
        framework.run(layer, x, training=True)
    for key, array in framework.arrays(layer).items():
        np.testing.assert_array_equal(array, before[key])


def test_the_layer_that_sees_one_value_is_named(framework):
    model = framework.room.build(spec.preset("mafc_v3_small", width_multiplier=0.25, num_classes=3), seed=0)
    with pytest.raises(ShapeError) as caught:
        framework.run(model, maps((1, 3, 8, 8)), training=True)
    assert str(caught.value).startswith("backbone.stage2.unit1.conv2.bn: expected more than 1 value per channel")
    assert framework.run(model, maps((1, 3, 8, 8))).shape == (1, 3)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("value", [0.0, 1.0, -7.5])
def test_constant_maps(framework, name, value):
    layer, x = getattr(framework.room, name)(16), np.full((2, 16, 6, 5), value, np.float32)
    for training in (False, True):
        assert np.isfinite(framework.run(layer, x, training)).all()


@pytest.mark.parametrize("name", GATES)
def test_other_channels_than_made_for(framework, name):
    with pytest.raises(ShapeError, match=r"^expected an input \(N, 16, H, W\), got \(2, 8, 5, 5\)$"):
        framework.run(getattr(framework.room, name)(16), maps((2, 8, 5, 5)))


@pytest.mark.parametrize("version", ["v1", "v2", "v3", "v3_small"])
def test_width_multipliers_that_leave_no_channel(framework, version):
    with pytest.raises(MaamError, match=r"^width_multiplier: 0\.01 leaves no channel of \d+; use at least 0\.0"):
        framework.room.build(spec.preset(f"mafc_{version}", width_multiplier=0.01))
