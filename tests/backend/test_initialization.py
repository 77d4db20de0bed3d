"""Initial distributions, and the generators that draw them."""

import math

import ml_dtypes
import numpy as np
import pytest

from maam import spec
from maam.spec import Role


def check_distributions(node, arrays):
    """Check the distributions that the design promises, stated here once more."""
    for parameter in node.parameters():
        array = arrays[parameter.name].astype(np.float64)
        layer = node.at(parameter.name.rpartition(".")[0])
        if parameter.role in (Role.NORM_WEIGHT, Role.RUNNING_VAR):
            assert set(array.flat) == {1}, parameter.name
        elif parameter.role in (Role.NORM_BIAS, Role.RUNNING_MEAN) or parameter.name.endswith("alpha"):
            assert set(array.flat) == {0}, parameter.name
        elif isinstance(layer, spec.Conv2d) and parameter.name.endswith("weight"):  # He's normal distribution
            expected, noise = math.sqrt(2 / array[0].size), 4 / math.sqrt(array.size)
            assert array.std() == pytest.approx(expected, rel=noise / math.sqrt(2)), parameter.name
            assert abs(array.mean()) < noise * expected, parameter.name
        elif isinstance(layer, (spec.Conv2d, spec.Linear)) and parameter.name.endswith("bias"):
            bound = 1 / math.sqrt(arrays[parameter.name.replace("bias", "weight")][0].size)
            assert 0.3 * bound < np.abs(array).max() <= bound, parameter.name
        elif isinstance(layer, spec.RNN):
            assert 0.9 / math.sqrt(128) < np.abs(array).max() <= 1 / math.sqrt(128), parameter.name
        else:
            assert isinstance(layer, spec.Linear)


@pytest.fixture(autouse=True)
def seed_framework(backend):
    """Seed the framework's own generator, and return the function; MindSpore also seeds NumPy's."""
    state = np.random.get_state()
    seed = backend.torch.manual_seed if backend.name == "torch" else backend.ms.set_seed
    seed(3)
    yield seed
    np.random.set_state(state)


MODELS = [{}, {"depthwise": True}, {"norm_layer": "identity"}, "rnn", "maam_digits"]


def make(backend, options, **device):
    """Build the layer with options, or a preset."""
    if isinstance(options, dict):
        return backend.maam.MAAM(64, **options, **device)
    return backend.maam.build(spec.preset(options, image_size=8), **device)


@pytest.mark.parametrize("options", MODELS[:-1], ids=str)
def test_layers_and_recurrent_weights(backend, options):
    model = make(backend, options)
    check_distributions(model.spec, backend.read(model))


@pytest.mark.parametrize("seed", [None, 0])
def test_a_model(backend, seed):
    model = backend.maam.build("maam_digits", seed=seed)
    arrays = backend.read(model)
    check_distributions(model.spec, arrays)
    weight, bound = arrays["classifier.fc1.weight"], math.sqrt(6 / 512)
    assert 0.95 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert 0.95 / 8 < np.abs(arrays["classifier.fc2.weight"]).max() <= 1 / 8


def test_the_check_notices_another_distribution(backend):
    layer = backend.maam.MAAM(64)
    arrays = backend.read(layer)
    arrays["reduce.conv.weight"] *= 1 / math.sqrt(6)  # PyTorch's default has a standard deviation of 1 / sqrt(3 fan_in)
    with pytest.raises(AssertionError, match="reduce"):
        check_distributions(layer.spec, arrays)


def test_the_generator_of_the_framework_can_be_seeded(backend, seed_framework):
    seed_framework(1)
    first, other = (backend.read(backend.maam.MAAM(4)) for _ in range(2))
    seed_framework(1)
    again = backend.read(backend.maam.MAAM(4))
    np.testing.assert_equal(again, first)
    assert not np.array_equal(first["reduce.conv.weight"], other["reduce.conv.weight"])
    assert not np.array_equal(first["agents.0.conv1.weight"], first["agents.1.conv1.weight"])


@pytest.mark.parametrize("name", ["maam_digits", "rnn"])
def test_a_seed_does_not_depend_on_the_framework(backend, seed_framework, name):
    drawn = spec.draw(spec.preset(name).parameters(), 7)
    for value in (1, 2):
        seed_framework(value)
        np.testing.assert_equal(backend.read(backend.maam.build(name, seed=7)), drawn)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float64"])
def test_dtypes(backend, name, small):
    model = backend.maam.build(small, seed=5, dtype=backend.dtype(name))
    arrays, dtype = backend.read(model), np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    assert {parameter.dtype for parameter in backend.parameters(model).values()} == {backend.dtype(name)}
    assert {array.dtype for array in arrays.values()} == {dtype}
    np.testing.assert_equal(arrays, {key: a.astype(dtype) for key, a in spec.draw(small.parameters(), 5).items()})


@pytest.mark.parametrize("reset", ["root", "each"])
@pytest.mark.parametrize("options", MODELS, ids=str)
@pytest.mark.parametrize("backend", ["torch"], indirect=True)
def test_after_the_meta_device(backend, options, reset):
    """PyTorch's tools call `reset_parameters` on each module then."""
    model = make(backend, options, device="meta").to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    for module in [model] if reset == "root" else model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    check_distributions(model.spec, backend.read(model))
    assert all(b == 0 for name, b in model.named_buffers() if name.endswith("num_batches_tracked"))
