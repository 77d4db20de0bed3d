"""Modules as PyTorch's users use them: keys, copies, dtypes and devices, modes, hooks, replaced and frozen layers."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from maam.torch import MAAM, build

EXACT = {"rtol": 0, "atol": 0}


class TestKeys:
    """The keys of state_dict, which are the canonical names."""

    NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def block(self, path, suffixes=("1", "2")):
        for suffix in suffixes:
            yield f"{path}.conv{suffix}.weight"
            yield from (f"{path}.bn{suffix}.{name}" for name in self.NORM)

    def test_of_a_layer(self):
        expected = ["agents.alpha", *self.block("agents.0"), *self.block("reduce", [""])]
        found = list(MAAM(4, num_agents=1).state_dict())
        assert found == expected
        assert found[1:4] == ["agents.0.conv1.weight", "agents.0.bn1.weight", "agents.0.bn1.bias"]
        assert found[-2:] == ["reduce.bn.running_var", "reduce.bn.num_batches_tracked"]

    def test_of_dynamic_fusion(self):
        weighting = ["agents.weighting.fc.weight", "agents.weighting.fc.bias"]
        found = list(MAAM(4, num_agents=2, fusion="dynamic", reduce=False).state_dict())
        assert found == [*self.block("agents.0"), *self.block("agents.1"), *weighting]

    def test_of_depthwise_convolutions(self):
        convs = [f"agents.0.conv{i}.{kind}.weight" for i in "12" for kind in ("depthwise", "pointwise")]
        found = list(MAAM(4, num_agents=1, depthwise=True, reduce=False, fusion="mean").state_dict())
        assert [key for key in found if ".conv" in key] == convs
        assert [key for key in found if ".bn" in key] == [key for key in self.block("agents.0") if ".bn" in key]

    def test_without_norm(self):
        pairs = [f"agents.0.conv{i}.{name}" for i in "12" for name in ("weight", "bias")]
        found = list(MAAM(4, num_agents=1, norm_layer="identity").state_dict())
        assert found == ["agents.alpha", *pairs, "reduce.conv.weight", "reduce.conv.bias"]

    def test_are_the_names_of_the_spec(self, layer):
        own = [key for key in layer.state_dict() if not key.endswith("num_batches_tracked")]
        assert sorted(own) == sorted(p.name for p in layer.spec.parameters())


class TestCopies:
    @staticmethod
    def through_file(module):
        buffer = io.BytesIO()
        torch.save(module, buffer)
        buffer.seek(0)
        return torch.load(buffer, weights_only=False)

    @pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save"])
    def test_whole_modules(self, layer, x, step, way):
        duplicate = {"deepcopy": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m))}
        other = duplicate.get(way, self.through_file)(layer)
        assert (other.spec, other.rule, repr(other)) == (layer.spec, layer.rule, repr(layer))
        torch.testing.assert_close(step(other, x), step(layer, x), **EXACT)
        with torch.no_grad():
            next(other.parameters()).add_(1)
        assert not torch.equal(next(other.parameters()), next(layer.parameters()))

    def test_state_dict(self, layer, variant, x, step, tmp_path):
        other = MAAM(4, 8, **variant)
        assert not torch.equal(other(x), layer(x))
        torch.save(layer.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
        torch.testing.assert_close(dict(other.state_dict()), dict(layer.state_dict()), **EXACT)
        torch.testing.assert_close(step(other, x), step(layer, x), **EXACT)
        with pytest.raises(RuntimeError, match="Missing key"):
            other.load_state_dict({})

    def test_averaged_model(self, layer, x):
        averaged = torch.optim.swa_utils.AveragedModel(layer)
        averaged.update_parameters(layer)
        torch.testing.assert_close(averaged.eval()(x), layer.eval()(x), **EXACT)


class TestDtypesAndDevices:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float32])
    def test_of_a_layer(self, variant, x, dtype):
        layer = MAAM(4, 8, dtype=dtype, **variant)
        assert {t.dtype for t in layer.state_dict().values() if t.is_floating_point()} == {dtype}
        assert layer(x.to(dtype)).dtype == dtype

    def test_of_a_model(self):
        model = build("maam_digits", seed=0, dtype=torch.float64)
        assert {p.dtype for p in model.parameters()} == {torch.float64}
        torch.testing.assert_close(model.float().state_dict(), build("maam_digits", seed=0).state_dict(), **EXACT)
        assert {t.device.type for t in build("maam_digits", seed=0, device="meta").state_dict().values()} == {"meta"}

    def test_meta_device(self, variant):
        layer = MAAM(4, 8, device="meta", dtype=torch.bfloat16, **variant)
        assert {t.device.type for t in layer.state_dict().values()} == {"meta"}
        assert layer(torch.empty(2, 4, 8, 8, device="meta", dtype=torch.bfloat16)).dtype == torch.bfloat16

    def test_default_dtype(self):
        torch.set_default_dtype(torch.float64)
        try:
            assert {p.dtype for p in nn.ModuleList([MAAM(4), build("maam_digits")]).parameters()} == {torch.float64}
        finally:
            torch.set_default_dtype(torch.float32)


def batch_norms(module):
    return [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), MAAM(4, 8, pool=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))


class TestTraining:
    def test_one_step_of_an_optimizer(self):
        model, x, target = network(), torch.randn(6, 1, 10, 10), torch.arange(6) % 3
        nn.functional.cross_entropy(model(x), target).backward()
        expected = {name: (p - 0.1 * p.grad).detach() for name, p in model.named_parameters()}
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        assert not [name for name, p in model.named_parameters() if p.grad is None]
        torch.testing.assert_close(dict(model.named_parameters()), expected, rtol=0, atol=1e-7)

    def test_the_loss_falls(self):
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

    @pytest.mark.parametrize("make", [lambda: MAAM(4), lambda: build("maam_digits", seed=0)], ids=["layer", "model"])
    def test_train_and_eval_reach_all_modules(self, make):
        model = make()
        assert not any(module.training for module in model.eval().modules())
        assert all(module.training for module in model.train().modules())

    def test_modes_differ(self, layer, x):
        outputs = layer(x), layer.eval()(x)
        assert torch.allclose(*outputs) == (not batch_norms(layer))

    def test_running_statistics(self, x, scramble):
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

    def test_eval_mode_keeps_statistics(self, layer, x):
        before = {name: buffer.clone() for name, buffer in layer.named_buffers()}
        layer.eval()(x)
        torch.testing.assert_close(dict(layer.named_buffers()), before, **EXACT)
        layer.train()(x)
        assert all(not torch.equal(before[name], buffer) for name, buffer in layer.named_buffers())

    def test_frozen_parameters(self, layer, x):
        layer.requires_grad_(False)
        layer.get_submodule("agents.0").requires_grad_(True)
        layer(x).sum().backward()
        frozen = [n for n, p in layer.named_parameters() if p.grad is None]
        assert frozen == [n for n, _ in layer.named_parameters() if not n.startswith("agents.0.")]

    def test_synchronized_batch_norm(self, layer, x):
        expected, names, count = layer.eval()(x), list(layer.state_dict()), len(batch_norms(layer))
        assert nn.SyncBatchNorm.convert_sync_batchnorm(layer) is layer
        assert sum(isinstance(m, nn.SyncBatchNorm) for m in layer.modules()) == count
        assert not batch_norms(layer)
        assert list(layer.state_dict()) == names
        torch.testing.assert_close(layer(x), expected, **EXACT)


class TestLayersInside:
    def test_hooks_by_name(self, layer, x):
        """Every layer of the spec is a module of that name, is called, and gives the shape that the spec says."""
        shapes = {}

        def remember(path):
            return lambda _module, _inputs, y: shapes.update({path: tuple(y.shape[1:])})

        summary = {path: shape for path, _, _, shape in layer.spec.summary((4, 8, 8))}
        for path in summary:
            layer.get_submodule(path).register_forward_hook(remember(path))
        layer(x)
        assert shapes == summary

    def test_a_hook_changes_the_result(self, layer, x, step):
        before = step(layer.eval(), x)
        handle = layer.get_submodule("agents.0").register_forward_hook(lambda _module, _inputs, y: 0 * y)
        changed = layer(x).detach()
        handle.remove()
        assert not torch.equal(changed, before["output"])
        torch.testing.assert_close(step(layer, x), before, **EXACT)

    def test_a_replaced_layer(self, x, scramble):
        layer = scramble(MAAM(4)).eval()
        layer.reduce.act = nn.Identity()
        assert layer(x).min() < 0
        assert torch.equal(layer(x).relu(), scramble(MAAM(4)).eval()(x))

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
