"""Initial distributions, after construction, after `reset_parameters`, and after a stay on the meta device."""

import math

import pytest
import torch
from torch import nn

from maam import spec
from maam.torch import MAAM, build


def reset_all(model):
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()


def poisoned(model):
    """Real memory that nothing has been written to, made visible."""
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(math.nan if tensor.is_floating_point() else -1)
    return model


def check(module):
    """The distributions that the design promises, stated here once more."""
    if isinstance(module, nn.Conv2d):
        expected, noise = math.sqrt(2 / module.weight[0].numel()), 4 / math.sqrt(module.weight.numel())
        assert module.weight.std().item() == pytest.approx(expected, rel=noise / math.sqrt(2))
        assert abs(module.weight.mean().item()) < noise * expected
    if isinstance(module, nn.BatchNorm2d):
        assert (module.weight == 1).all()
        assert (module.bias == 0).all()
        assert (module.running_mean == 0).all()
        assert (module.running_var == 1).all()
        assert module.num_batches_tracked == 0
    if getattr(module, "alpha", None) is not None:
        assert (module.alpha == 0).all()
    if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
        bound = 1 / math.sqrt(module.weight[0].numel())
        assert 0.3 * bound < module.bias.abs().max().item() <= bound


@torch.no_grad()
def check_all(model):
    for module in model.modules():
        check(module)


def fresh(kind, device=None):
    arguments = {"maam": {}, "depthwise": {"depthwise": True}, "no_norm": {"norm_layer": "identity"}}
    if kind in arguments:
        return MAAM(64, fusion="softmax", device=device, **arguments[kind])
    return build(kind, device=device)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(3)


@pytest.fixture(params=["maam", "depthwise", "no_norm", "maam_digits"])
def kind(request):
    return request.param


def test_fresh(kind):
    check_all(fresh(kind))


@pytest.mark.parametrize("reset", [lambda model: model.reset_parameters(), reset_all], ids=["root", "each"])
def test_meta_then_reset(kind, reset):
    model = poisoned(fresh(kind, "meta"))
    reset(model)
    check_all(model)


def test_check_notices_a_default_of_pytorch():
    layer = MAAM(64)
    nn.Conv2d.reset_parameters(layer.reduce.conv)  # std 1 / sqrt(3 fan_in)
    layer.reduce.conv.spec = None
    with pytest.raises(AssertionError):
        check_all(layer)


def test_reset_restores_statistics(x, scramble):
    layer = scramble(MAAM(4))
    layer(x)
    layer.reset_parameters()
    for module in layer.modules():
        if isinstance(module, nn.BatchNorm2d):
            check(module)


@torch.no_grad()
def test_linear_weights():
    layers = build("maam_digits").classifier
    bound = math.sqrt(6 / 512)
    assert 0.95 * bound < layers.fc1.weight.abs().max().item() <= bound
    assert layers.fc1.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert 0.95 / 8 < layers.fc2.weight.abs().max().item() <= 1 / 8


@torch.no_grad()
def test_recurrent_weights():
    model = poisoned(build(spec.preset("rnn", image_size=8), device="meta"))
    reset_all(model)
    bound = 1 / math.sqrt(128)
    for parameter in model.rnn.parameters():
        assert 0.9 * bound < parameter.abs().max().item() <= bound


def test_generators():
    torch.manual_seed(1)
    first = MAAM(4).reduce.conv.weight
    torch.manual_seed(1)
    assert torch.equal(first, MAAM(4).reduce.conv.weight)
    assert not torch.equal(first, MAAM(4).reduce.conv.weight)


def test_seed_is_its_own_generator():
    torch.manual_seed(1)
    first = build("maam_digits", seed=7).state_dict()
    torch.manual_seed(2)
    torch.testing.assert_close(build("maam_digits", seed=7).state_dict(), first, rtol=0, atol=0)
    assert not torch.equal(build("maam_digits", seed=8).reduce.conv.weight, first["reduce.conv.weight"])


def test_seeded_distributions():
    check_all(build("maam_digits", seed=0))
