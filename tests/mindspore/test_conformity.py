"""A cell in which a layer was replaced runs that layer, and is not saved or fused by a spec that is not its own."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn

import maam.mindspore
from maam.errors import DeploymentError, WeightsError

X = np.random.default_rng(0).random((2, 1, 8, 8), np.float32)


@pytest.fixture
def model():
    return maam.mindspore.build("maam_digits", seed=0)


@pytest.mark.parametrize("mode", [ms.GRAPH_MODE, ms.PYNATIVE_MODE], ids=["graph", "pynative"])
def test_a_replaced_layer_runs(model, mode):
    before = ms.get_context("mode")
    ms.set_context(mode=mode)
    try:
        first = model(ms.Tensor(X)).asnumpy()
        model.classifier = nn.Flatten()  # forgets the graph that has run
        assert model(ms.Tensor(X)).shape == (2, 512)
        other = maam.mindspore.build("maam_digits", seed=0)
        other.reduce.act = nn.Sigmoid()
        assert np.abs(other(ms.Tensor(X)).asnumpy() - first).max() > 1e-3
    finally:
        ms.set_context(mode=before)


def test_a_replaced_layer_is_named(model, tmp_path):
    model.classifier.fc2 = nn.Dense(64, 5)
    with pytest.raises(WeightsError, match=r"save_weights: layer 'classifier.fc2' was .*=10, .* and is .*=5, "):
        maam.mindspore.save_weights(model, tmp_path / "model.safetensors")
    with pytest.raises(DeploymentError, match=r"reparameterize: layer 'classifier.fc2'"):
        model.reparameterize()
    assert not list(tmp_path.iterdir())


def test_changed_settings_are_named(model):
    model.reduce.bn.eps = 1e-3
    with pytest.raises(DeploymentError, match=r"'reduce.bn' was BatchNorm2d.* eps=0.001"):
        model.reparameterize()


def test_a_container_of_another_spec_is_followed(model, tmp_path):
    other = maam.mindspore.build("maam_digits", seed=3)
    other.reduce.reparameterize()
    model.reduce = other.reduce
    maam.mindspore.save_weights(model, tmp_path / "model.safetensors")
    loaded = maam.mindspore.load(tmp_path / "model.safetensors")
    np.testing.assert_allclose(loaded(ms.Tensor(X)).asnumpy(), model(ms.Tensor(X)).asnumpy(), atol=1e-6)


def test_frozen_layers_stay_frozen(model):
    for parameter in model.agents.get_parameters():
        parameter.requires_grad = False
    model.reparameterize()
    frozen = {name for name, parameter in model.parameters_and_names() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.parameters_and_names() if name.startswith("agents.")}


def test_frozen_batch_norm_takes_a_batch_of_one():
    layer = maam.mindspore.MAAM(8).set_train(True)
    for _, cell in layer.cells_and_names():
        if isinstance(cell, nn.BatchNorm2d):
            cell.set_train(False)
    assert layer(ms.ops.ones((1, 8, 1, 1))).shape == (1, 8, 1, 1)
    layer.reduce.bn.set_train(True)
    with pytest.raises(maam.ShapeError, match=r"reduce.bn: expected more than 1 value per channel"):
        layer(ms.ops.ones((1, 8, 1, 1)))


@pytest.mark.parametrize("other", [lambda norm: nn.GroupNorm(1, norm.num_features), lambda norm: nn.Identity()])
def test_other_norms_take_a_batch_of_one(other):
    layer = maam.mindspore.MAAM(8).set_train(True)
    for _, cell in list(layer.cells_and_names()):
        for name, inner in list(cell.name_cells().items()):
            if isinstance(inner, nn.BatchNorm2d):
                setattr(cell, name, other(inner))
    assert layer(ms.ops.ones((1, 8, 1, 1))).shape == (1, 8, 1, 1)
    layer.reduce = nn.Identity()
    assert layer(ms.ops.ones((1, 8, 1, 1))).shape == (1, 8, 1, 1)


def test_a_function_of_its_own_is_not_saved(tmp_path):
    class Twice(maam.mindspore.MAFC):
        def construct(self, x):
            return 2 * super().construct(x)

    with pytest.raises(WeightsError, match=r"save_weights: Twice has a construct of its own, which the spec does not"):
        maam.mindspore.save_weights(Twice(8), tmp_path / "layer.safetensors")


def test_branches_are_counted(tmp_path):
    layer = maam.mindspore.MAAM(8, fusion="dynamic")
    agents = layer.agents
    assert len(agents) == 3
    assert [type(branch).__name__ for branch in agents] == ["Container"] * 3
    agents[0] = nn.Identity()
    with pytest.raises(WeightsError, match=r"layer 'agents.0' was .* and is Identity"):
        maam.mindspore.save_weights(layer, tmp_path / "layer.safetensors")


@pytest.mark.parametrize("x", [None, [1.0], X], ids=["None", "list", "ndarray"])
def test_no_tensor(x):
    with pytest.raises(maam.ShapeError, match=rf"expected a mindspore.Tensor .*, got {type(x).__name__}"):
        maam.mindspore.MAAM(8)(x)
