"""A module in which a layer was replaced is not saved or fused by a spec that no longer is its own."""

import pytest
import torch
from torch import nn

import maam.torch
from maam.errors import DeploymentError, WeightsError
from maam.torch.huggingface import HubModel


@pytest.fixture
def model():
    return maam.torch.build("maam_digits", seed=0).eval()


def swap(model, path, layer):
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, layer)


REPLACED = [("reduce.act", nn.SiLU()), ("classifier.fc2", nn.Linear(64, 5)), ("agents.1", nn.Identity())]


@pytest.mark.parametrize(("path", "layer"), REPLACED, ids=[path for path, _ in REPLACED])
def test_a_replaced_layer_is_named(model, path, layer, tmp_path):
    swap(model, path, layer)
    with pytest.raises(WeightsError, match=rf"save_weights: layer '{path}' was .* and is {type(layer).__name__}"):
        maam.torch.save_weights(model, tmp_path / "model.safetensors")
    with pytest.raises(DeploymentError, match=rf"reparameterize: layer '{path}'"):
        model.reparameterize()
    assert not list(tmp_path.iterdir())


def test_changed_settings_are_named(model):
    model.reduce.bn.eps = 1e-3
    with pytest.raises(DeploymentError, match=r"'reduce.bn' was BatchNorm2d\(32, eps=1e-05.* eps=0.001"):
        model.reparameterize()


def test_a_removed_layer_is_named(model, tmp_path):
    del model.classifier.fc2
    with pytest.raises(WeightsError, match=r"layer 'classifier.fc2' .* is absent"):
        maam.torch.save_weights(model, tmp_path / "model.safetensors")


def test_what_acts_in_training_alone_may_change(model, tmp_path):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.5
    model.reduce.act.inplace = True
    model.reduce.bn = nn.SyncBatchNorm.convert_sync_batchnorm(model.reduce.bn)
    maam.torch.save_weights(model, tmp_path / "model.safetensors")
    x = torch.rand(2, *model.spec.input_shape)
    assert torch.equal(maam.torch.load(tmp_path / "model.safetensors").eval()(x), model(x))


def test_a_container_of_another_spec_is_followed(model, tmp_path):
    other = maam.torch.build("maam_digits", seed=3).eval()
    other.reduce.reparameterize()
    model.reduce = other.reduce
    maam.torch.save_weights(model, tmp_path / "model.safetensors")
    x = torch.rand(2, *model.spec.input_shape)
    assert torch.allclose(maam.torch.load(tmp_path / "model.safetensors").eval()(x), model(x), atol=1e-6)


def test_arrays_that_do_not_load_are_not_saved(model, tmp_path):
    with torch.no_grad():
        model.classifier.fc2.bias[3] = torch.nan
    with pytest.raises(WeightsError, match=r"NaN or infinity in classifier.fc2.bias"):
        maam.torch.save_weights(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_wrappers_are_saved_as_what_they_hold(model, tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(model)
    for index, wrapper in enumerate((HubModel(model), averaged, torch.compile(model), HubModel(torch.compile(model)))):
        maam.torch.save_weights(wrapper, tmp_path / f"{index}.safetensors")
        maam.torch.load(tmp_path / f"{index}.safetensors")


def test_a_network_is_no_wrapper(model, tmp_path):
    network = nn.Module()
    network.module, network.head = model, nn.Linear(10, 2)
    with pytest.raises(WeightsError, match=r"has no .spec"):
        maam.torch.save_weights(network, tmp_path / "model.safetensors")


def test_frozen_layers_stay_frozen(model):
    model.agents.requires_grad_(False)
    model.reduce.conv.requires_grad_(False)
    model.reparameterize()
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, _ in model.named_parameters() if name.startswith(("agents.", "reduce.conv"))}


def test_frozen_batch_norm_takes_a_batch_of_one():
    layer = maam.torch.MAAM(8).train()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert layer(torch.rand(1, 8, 1, 1)).shape == (1, 8, 1, 1)
    layer.reduce.bn.train()
    with pytest.raises(maam.ShapeError, match=r"reduce.bn: expected more than 1 value per channel"):
        layer(torch.rand(1, 8, 1, 1))


@pytest.mark.parametrize("other", [lambda norm: nn.GroupNorm(1, norm.num_features), lambda norm: nn.Identity()])
def test_other_norms_take_a_batch_of_one(other):
    layer = maam.torch.MAAM(8).train()
    for module in list(layer.modules()):
        for name, inner in list(module.named_children()):
            if isinstance(inner, nn.BatchNorm2d):
                setattr(module, name, other(inner))
    assert layer(torch.rand(1, 8, 1, 1)).shape == (1, 8, 1, 1)
    layer.reduce = nn.Identity()
    assert layer(torch.rand(1, 8, 1, 1)).shape == (1, 8, 1, 1)


def test_a_function_of_its_own_is_not_saved(tmp_path):
    class Twice(maam.torch.MAFC):
        def forward(self, x):
            return 2 * super().forward(x)

    class Named(maam.torch.MAFC):
        """Adds nothing that computes."""

    with pytest.raises(WeightsError, match=r"save_weights: Twice has a forward of its own, which the spec does not"):
        maam.torch.save_weights(Twice(8), tmp_path / "layer.safetensors")
    maam.torch.save_weights(Named(8), tmp_path / "layer.safetensors")


def test_channels_last_stays_when_fused():
    layer = maam.torch.MAAM(8).to(memory_format=torch.channels_last).eval()
    layer.reparameterize()
    maps = [p for p in layer.parameters() if p.dim() == 4 and not p.is_contiguous()]
    assert maps
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in maps)


@pytest.mark.parametrize("x", [None, [1.0], torch.rand(1, 8, 4, 4).numpy()], ids=["None", "list", "ndarray"])
def test_no_tensor(x):
    with pytest.raises(maam.ShapeError, match=rf"expected a torch.Tensor \(N, 8, H, W\), got {type(x).__name__}"):
        maam.torch.MAAM(8)(x)


def test_export_with_free_sizes():
    layer, free = maam.torch.MAAM(8, scales=(1, 2, 2)).eval(), torch.export.Dim.AUTO
    program = torch.export.export(layer, (torch.rand(2, 8, 8, 8),), dynamic_shapes=({0: free, 2: free, 3: free},))
    x = torch.rand(3, 8, 20, 13)
    torch.testing.assert_close(program.module()(x), layer(x))
