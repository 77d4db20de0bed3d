"""Training: inside other modules, modes, running statistics, hooks, synchronised batch norm."""

import pytest
import torch
from torch import nn

from maam.torch import MAAM, build


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), MAAM(4, 8, pool=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


def test_one_step_of_an_optimizer():
    model, x, target = network(), torch.randn(6, 1, 10, 10), torch.arange(6) % 3
    nn.functional.cross_entropy(model(x), target).backward()
    expected = {name: (p - 0.1 * p.grad).detach() for name, p in model.named_parameters()}
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    torch.testing.assert_close(dict(model.named_parameters()), expected, rtol=0, atol=1e-7)


def test_training_lowers_the_loss():
    model, x, target = network(), torch.randn(6, 1, 10, 10), torch.arange(6) % 3
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert model[1].agents.alpha.abs().sum() > 0


@pytest.mark.parametrize("make", [lambda: MAAM(4), lambda: build("maam_digits", seed=0)])
def test_train_mode_until_eval(make):
    model = make()
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.eval().modules())
    assert all(module.training for module in model.train().modules())


def test_modes_differ(layer, x):
    outputs = layer(x), layer.eval()(x)
    assert torch.allclose(*outputs) == (not batch_norms(layer))


def test_running_statistics(x, scramble):
    layer = scramble(MAAM(4))
    norm, conv = layer.agents.get_submodule("1.bn2"), layer.agents.get_submodule("1.conv2")
    seen = []
    conv.register_forward_hook(lambda _module, _inputs, y: seen.append(y.detach()))
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    layer(x)
    batch = seen[0].transpose(0, 1).flatten(1)
    torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * batch.mean(1), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, 0.9 * variance + 0.1 * batch.var(1), rtol=1e-5, atol=1e-6)
    assert norm.num_batches_tracked == 1


def test_eval_leaves_statistics_alone(layer, x):
    before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
    layer.eval()(x)
    torch.testing.assert_close(dict(layer.named_buffers()), before, rtol=0, atol=0)
    layer.train()(x)
    assert all(not torch.equal(before[name], buffer) for name, buffer in layer.named_buffers())


def test_hooks_by_name(layer, x):
    """Every layer of the spec is a module of that name, is called, and gives the shape the spec says."""
    shapes = {}

    def remember(path):
        return lambda _module, _inputs, y: shapes.update({path: tuple(y.shape[1:])})

    summary = {path: shape for path, _, _, shape in layer.spec.summary((4, 8, 8))}
    for path in summary:
        layer.get_submodule(path).register_forward_hook(remember(path))
    layer(x)
    assert shapes == summary


def test_hook_changes_the_result(layer, x, step):
    before = step(layer.eval(), x)
    handle = layer.get_submodule("agents.0").register_forward_hook(lambda _module, _inputs, y: 0 * y)
    changed = layer(x).detach()
    handle.remove()
    assert not torch.equal(changed, before["output"])
    torch.testing.assert_close(step(layer, x), before, rtol=0, atol=0)


def test_replacing_a_layer(x, scramble):
    layer = scramble(MAAM(4)).eval()
    layer.reduce.act = nn.Identity()
    assert layer(x).min() < 0
    assert torch.equal(layer(x).relu(), scramble(MAAM(4)).eval()(x))


def test_frozen_parameters(layer, x):
    layer.requires_grad_(False)
    layer.get_submodule("agents.0").requires_grad_(True)
    layer(x).sum().backward()
    frozen = [n for n, p in layer.named_parameters() if p.grad is None]
    assert frozen == [n for n, _ in layer.named_parameters() if not n.startswith("agents.0.")]


def test_synchronised_batch_norm(layer, x):
    expected, names, count = layer.eval()(x), list(layer.state_dict()), len(batch_norms(layer))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(layer)
    assert converted is layer
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in layer.modules()) == count
    assert not batch_norms(layer)
    assert list(layer.state_dict()) == names
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=0)


def test_averaged_model(layer, x):
    averaged = torch.optim.swa_utils.AveragedModel(layer)
    averaged.update_parameters(layer)
    torch.testing.assert_close(averaged.eval()(x), layer.eval()(x), rtol=0, atol=0)
