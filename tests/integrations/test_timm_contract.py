"""What timm's own `tests/test_models.py` asks of every model, checked for every preset that is registered with timm."""

import copy
import math

import pytest

torch, timm = map(pytest.importorskip, ("torch", "timm"))

from timm.models import FeatureInfo, group_parameters  # noqa: E402

from maam.timm import register_presets  # noqa: E402

NAMES = register_presets()
ONE_STAGE = ("cnn", "maam_digits", "t_cnn", "without_reduce")
"""Presets with fewer than four strides, small enough to run."""


def empty(name, **options):
    """Build a model whose tensors have shapes and no values, as timm's tests of the configuration do."""
    return timm.create_model(name, device="meta", dtype=torch.float32, **options).eval()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_the_configuration_describes_the_model(name):
    model = empty(name)
    cfg, arrays = model.default_cfg, model.state_dict()
    assert model.in_chans == cfg["input_size"][0]
    first = cfg["first_conv"]
    layers = {cfg["classifier"], *((first,) if isinstance(first, str) else first)}
    assert arrays.keys() >= {f"{layer}.weight" for layer in layers}
    x = torch.empty(1, *cfg["input_size"], device="meta")
    maps, vector = (1, model.num_features, *cfg["pool_size"]), (1, model.head_hidden_size)
    assert (features := model.forward_features(x)).shape == maps
    assert model.forward_head(features, pre_logits=True).shape == vector
    assert model.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16
    model.float().reset_classifier(0)
    assert (model(x).shape, model.num_classes) == (vector, 0)
    model.reset_classifier(0, "")
    assert model(x).shape == maps
    assert empty(name, num_classes=0)(x).shape == vector
    assert empty(name, num_classes=0, global_pool="")(x).shape == maps


def test_a_new_head_keeps_device_dtype_mode_and_frozen_layers(name):
    model = empty(name, num_classes=0, global_pool="").double().requires_grad_(False)
    model.reset_classifier(0)
    assert not any(p.requires_grad for p in model.parameters())
    model.reset_classifier(2)
    head = list(model.get_classifier().parameters())
    assert head[0].shape[0] == 2
    assert {(p.device.type, p.dtype) for p in head} == {("meta", torch.float64)}
    assert not any(module.training for module in model.modules())
    assert len(set(group_parameters(model, model.group_matcher(), reverse=True).values())) > 1
    with pytest.raises(TypeError, match="has no option 'not_an_argument'"):
        empty(name, not_an_argument=1)


def test_feature_maps(name):
    model = empty(name, features_only=True)
    size = model.model.whole.input_shape
    maps = model(torch.empty(1, *size, device="meta"))
    assert [found.shape[1] for found in maps] == model.feature_info.channels()
    assert len(maps) >= 3
    for info, found in zip(model.feature_info, maps, strict=True):
        assert size[1] / (2 * info["reduction"]) < found.shape[2] <= math.ceil(size[1] / info["reduction"])


@pytest.mark.parametrize(
    ("name", "indices", "kind"),
    [
        *(("mafc_v3_small", indices, None) for indices in ((0, 2), (-1,), (1,), 2)),
        *((name, (0, 2), kind) for name in (*ONE_STAGE, "mafc_v3_small") for kind in ("hook", "fx")),
    ],
)
def test_every_extractor_returns_the_selected_maps(name, indices, kind, made):
    whole, options = made(name, seed=0).eval(), {} if kind is None else {"feature_cls": kind}
    extractor = made(name, seed=0, features_only=True, out_indices=indices, **options).eval()
    x = torch.rand(2, *whole.spec.input_shape)
    _, expected = whole.forward_intermediates(x, indices=list(indices) if isinstance(indices, tuple) else indices)
    assert all(torch.equal(a, b) for a, b in zip(extractor(x), expected, strict=True))
    assert [m.shape[1] for m in expected] == extractor.feature_info.channels()


@pytest.mark.parametrize("name", [*ONE_STAGE, "mafc_v3_small"])
def test_pruning(name, made):
    """A pruned model ends at its map, and trains all of its parameters."""
    model = made(name).eval()
    x = torch.rand(2, *model.spec.input_shape)
    whole, maps = model.forward_intermediates(x)
    assert torch.equal(whole, model.forward_features(x))
    for index in range(len(FeatureInfo(model.feature_info, len(maps)))):
        early = model.forward_intermediates(x, [index], stop_early=True, intermediates_only=True)
        assert torch.equal(early[0], maps[index])
        pruned = copy.deepcopy(model)
        pruned.prune_intermediate_layers([index])
        assert torch.equal(pruned.forward_features(x), maps[index])
        assert pruned.num_features == maps[index].shape[1]
        pruned.train().forward_features(x).sum().backward()
        assert not [path for path, p in pruned.named_parameters() if p.grad is None]
    pair = timm.create_model("maam_digits", features_only=True, out_indices=(0, 1))
    assert [m.shape for m in pair(torch.rand(2, 1, 8, 8))] == [(2, 32, 4, 4)] * 2


@pytest.mark.parametrize("name", [*ONE_STAGE, "mafc_v3_small"])
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning", "ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")  # about torch.fx.GraphModule
def test_torchscript(name, made):
    model = made(name).eval()
    x = torch.rand(3, *model.spec.input_shape)
    script = torch.jit.script(model)
    assert torch.equal(script(x), model(x))
    assert script.state_dict().keys() == model.state_dict().keys()
