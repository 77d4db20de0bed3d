"""Modules as PyTorch's users use them: copies, dtypes and devices, training, hooks, replaced and frozen layers."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from maam.torch import MAAM, build
from maam.torch.runner import Runner

EXACT = {"rtol": 0, "atol": 0}


def through_file(module):
    torch.save(module, buffer := io.BytesIO())
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "torch.save": through_file,
    "AveragedModel": lambda module: torch.optim.swa_utils.AveragedModel(module).module,
}


@pytest.mark.parametrize("way", COPIES)
def test_copies(layer, x, step, way):
    other = COPIES[way](layer)
    assert (other.spec, other.rule, repr(other)) == (layer.spec, layer.rule, repr(layer))
    torch.testing.assert_close(step(other, x), step(layer, x), **EXACT)
    with torch.no_grad():
        next(other.parameters()).add_(1)
    assert not torch.equal(next(other.parameters()), next(layer.parameters()))


class TestDtypesAndDevices:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
    def test_of_a_layer(self, variant, x, dtype):
        for device in ("cpu", "meta"):
            layer = MAAM(4, 8, dtype=dtype, device=device, **variant)
            tensors = list(layer.state_dict().values())
            assert {t.dtype for t in tensors if t.is_floating_point()} == {dtype}
            assert {t.device.type for t in tensors} == {device}
            assert layer(x.to(device, dtype)).dtype == dtype

    def test_default_dtype(self):
        torch.set_default_dtype(torch.float64)
        try:
            assert {p.dtype for p in nn.ModuleList([MAAM(4), build("maam_digits")]).parameters()} == {torch.float64}
        finally:
            torch.set_default_dtype(torch.float32)


class TestTraining:
    def test_in_a_network(self):
        torch.manual_seed(0)
        pool, head = nn.AdaptiveAvgPool2d(1), nn.Linear(8, 3)
        model = nn.Sequential(nn.Conv2d(1, 4, 3), MAAM(4, 8, pool=2), pool, nn.Flatten(), head)
        x, target = torch.randn(6, 1, 10, 10), torch.arange(6) % 3
        optimizer, losses = torch.optim.Adam(model.parameters(), lr=0.01), []
        for _ in range(21):
            optimizer.zero_grad()
            losses.append(nn.functional.cross_entropy(model(x), target))
            losses[-1].backward()
            optimizer.step()
        assert losses[-1] < 0.7 * losses[0]
        assert model[1].agents.alpha.abs().sum() > 0

    def test_frozen_parameters(self, layer, x):
        layer.requires_grad_(False)
        layer.get_submodule("agents.0").requires_grad_(True)
        layer(x).sum().backward()
        frozen = [n for n, p in layer.named_parameters() if p.grad is None]
        assert frozen == [n for n, _ in layer.named_parameters() if not n.startswith("agents.0.")]

    def test_synchronized_batch_norm(self, layer, x):
        expected, names = layer.eval()(x), list(layer.state_dict())
        kinds = [nn.SyncBatchNorm if type(m) is nn.BatchNorm2d else type(m) for m in layer.modules()]
        assert nn.SyncBatchNorm.convert_sync_batchnorm(layer) is layer
        assert [type(m) for m in layer.modules()] == kinds
        assert list(layer.state_dict()) == names
        torch.testing.assert_close(layer(x), expected, **EXACT)


class TestLayersInside:
    def test_hooks_by_name(self, layer, x):
        """Every layer of the spec is a module of that name, is called, and gives the shape that the spec says."""
        summary = {path: shape for path, _, _, shape in layer.spec.summary((4, 8, 8))}
        paths, shapes = {layer.get_submodule(path): path for path in summary}, {}
        for module in paths:
            module.register_forward_hook(lambda own, _inputs, y: shapes.update({paths[own]: tuple(y.shape[1:])}))
        layer(x)
        assert shapes == summary

    def test_a_hook_changes_the_result(self, layer, x, step):
        before = step(layer.eval(), x)
        handle = layer.get_submodule("agents.0").register_forward_hook(lambda _module, _inputs, y: 0 * y)
        changed = layer(x).detach()
        handle.remove()
        assert not torch.equal(changed, before["output"])
        torch.testing.assert_close(step(layer, x), before, **EXACT)

    def test_one_activation_module_in_two_places(self, x, scramble):
        layer = scramble(MAAM(4, act_layer="tanh")).eval()
        expected = layer(x)
        for block in layer.agents.children():
            block.act1 = block.act2  # `children()` would run it once
        torch.testing.assert_close(layer(x), expected, **EXACT)

    def test_a_subclass_computes_more(self, x):
        class WithHead(MAAM):
            def __init__(self, channels, classes):
                super().__init__(channels)
                self.head = nn.Linear(channels, classes)

            def forward(self, x):
                return self.head(super().forward(x).mean((2, 3)))

        model, plain = WithHead(4, 3), MAAM(4)
        plain.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
        torch.testing.assert_close(model(x), model.head(plain(x).mean((2, 3))), **EXACT)


def test_clones_keep_the_device_and_memory_format():
    runner = Runner(build("maam_digits", device="meta"), channels_last=True)
    clone = runner.clone_with(runner.spec, {}, "float16")
    weight = next(clone.model.parameters())
    assert (weight.device.type, weight.dtype) == ("meta", torch.float16)
    assert clone.memory_format is torch.channels_last
