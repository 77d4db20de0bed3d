"""A preset as a timm model.

First, for every preset, what timm's own `tests/test_models.py` asks of every model; then features, head, classifier,
feature extraction, groups, fusion and export in detail.
"""

import copy
import math

import pytest

torch, timm = map(pytest.importorskip, ("torch", "timm"))

from timm.models import FeatureInfo, group_parameters  # noqa: E402
from timm.optim import create_optimizer_v2  # noqa: E402
from timm.utils import reparameterize_model  # noqa: E402

import maam  # noqa: E402
from maam.errors import DeploymentError, ShapeError, SpecError, WeightsError  # noqa: E402
from maam.timm import register_presets  # noqa: E402
from maam.torch import load, save_weights  # noqa: E402
from tests.errors import error_of  # noqa: E402

each = pytest.mark.parametrize("name", register_presets())
ONE_STAGE = ("cnn", "maam_digits", "t_cnn", "without_reduce")
"""Presets with fewer than four strides, small enough to run."""


def empty(name, **options):
    """Build a model whose tensors have shapes and no values, as timm's tests of the configuration do."""
    return timm.create_model(name, device="meta", dtype=torch.float32, **options).eval()


@each
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


@each
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


@each
def test_feature_maps(name):
    model = empty(name, features_only=True)
    size = model.model.whole.input_shape
    maps = model(torch.empty(1, *size, device="meta"))
    assert [found.shape[1] for found in maps] == model.feature_info.channels()
    assert len(maps) >= 3
    for info, found in zip(model.feature_info, maps, strict=True):
        assert size[1] / (2 * info["reduction"]) < found.shape[2] <= math.ceil(size[1] / info["reduction"])


def test_reduction_is_the_stride_of_maps_without_border_pixels():
    model = empty("maam_net_s", features_only=True)
    assert model.feature_info.reduction() == [1, 2, 4, 8]
    assert [found.shape[2] for found in model(torch.empty(1, 3, 64, 64, device="meta"))] == [63, 31, 15, 7]


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


PARTS = {  # channels of the features, length of the pre-logits, (channels, stride) of each map
    "mafc_v1": (256, 256, [(32, 1), (64, 2), (128, 4), (256, 8)]),
    "mafc_v2": (1280, 1280, [(6, 1), (8, 2), (24, 4), (1280, 8)]),
    "mafc_v3": (960, 1280, [(6, 1), (10, 2), (28, 4), (960, 8)]),
    "mafc_v3_small": (576, 1024, [(4, 1), (6, 2), (12, 4), (576, 8)]),
    "maam_cifar10": (128, 256, [(128, 2)] * 6),
    "without_reduce": (128, 256, [(128, 4)] * 4),
    "t_cnn": (128, 256, [(64, 1), (128, 2), (128, 4)]),
    "cnn": (64, 128, [(32, 1), (64, 2), (64, 4)]),
}
SIZES = {"mafc_v3_small": (32, 3), "maam_digits": (8, 1)}


@pytest.mark.parametrize("name", PARTS)
def test_features_head_and_maps(name, made, images):
    model, x = made(name, num_classes=7).eval(), images()
    width, hidden, info = PARTS[name]
    features = model.forward_features(x)
    assert (features.dim(), features.shape[1], model.num_features) == (4, width, width)
    pre_logits = model.forward_head(features, pre_logits=True)
    assert (pre_logits.shape, model.head_hidden_size) == ((2, hidden), hidden)
    assert torch.equal(model.forward_head(features), model(x))
    classifier = model.get_classifier()
    assert classifier.weight.shape[:2] == (7, hidden)
    assert torch.allclose(pre_logits @ classifier.weight.flatten(1).T + classifier.bias, model(x), atol=1e-5)
    extractor = made(name, features_only=True).eval()
    assert [(stage["num_chs"], stage["reduction"]) for stage in extractor.feature_info] == info
    assert [tuple(m.shape) for m in extractor(x)] == [(2, c, 32 // s, 32 // s) for c, s in info]
    assert not any("classifier" in name for name in extractor.state_dict())


def test_layers_after_the_last_map_are_removed_or_do_not_run(made, images):
    model = made("mafc_v3_small").eval()
    model.backbone.stage3.register_forward_hook(lambda *_: pytest.fail("stage3 ran"))
    model.forward_intermediates(images(), [1], stop_early=True, intermediates_only=True)
    extractor = made("mafc_v3_small", features_only=True, out_indices=(0, 1))
    assert list(extractor.model.backbone.names) == ["data_bn", "init_conv", "stage1", "stage2"]
    assert not any("stage3" in name for name in extractor.state_dict())
    assert extractor.model.spec.output_shape((3, 32, 32)) == (6, 16, 16)
    # Only the head of a MAAM classifier requires one size.
    assert made("maam_cifar10", features_only=True)(images(48))[0].shape == (2, 128, 24, 24)
    message = "expected an input (N, 3, 32, 32), got (2, 3, 48, 48)"
    assert message in error_of(ShapeError, made("maam_cifar10"), images(48))


def test_invalid_calls(made, images):
    run = made("maam_digits").forward_intermediates
    for options in ({"output_fmt": "NHWC"}, {"stop_early": True}):
        message = "forward_intermediates: expected output_fmt 'NCHW'"
        assert message in error_of(SpecError, run, images(8, 1), **options)
    model = made("mafc_v2")
    for call in (model.forward_features, model.forward_intermediates):
        assert "expected an input (N, 3, H, W)" in error_of(ShapeError, call, images(channels=1))


def saved_and_loaded(model):
    save_weights(model, "model.safetensors")
    return load("model.safetensors").eval()


@pytest.mark.parametrize("name", ["mafc_v3_small", "maam_cifar10"])
def test_reset_classifier(name, made, images):
    model, x = made(name).eval(), images()
    before = copy.deepcopy(model)
    for num_classes in (0, 5):
        model.reset_classifier(num_classes)
        assert torch.equal(saved_and_loaded(model)(x), model(x))
        assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert model(x).shape == (2, 5)
    assert model.num_classes == model.spec.num_classes == model.get_classifier().weight.shape[0] == 5
    assert not model.get_classifier().training
    assert torch.equal(model.forward_features(x), before.forward_features(x))
    model.reset_classifier(0)
    assert isinstance(model.get_classifier(), torch.nn.Identity)
    assert torch.equal(model(x), before.forward_head(before.forward_features(x), pre_logits=True))
    model.reset_classifier(0, "")
    assert torch.equal(model(x), before.forward_features(x))


def test_pruning_removes_the_head_or_keeps_it(made, images):
    model = made("mafc_v3_small")
    assert model.prune_intermediate_layers([-1]) == [3]
    assert model.num_features == model.head_hidden_size == 576
    message = "classifier.conv: this layer was removed with the head; build the mod"
    assert message in error_of(DeploymentError, model.reset_classifier, 3)
    model = made("mafc_v3_small")
    assert model.prune_intermediate_layers(1, prune_head=False) == [3]
    assert model(images()).shape == (2, 1000)


@pytest.mark.parametrize("name", ["mafc_v2", "mafc_v3_small", "maam_cifar10"])
def test_a_weights_file_without_head_and_with_dropout(name, made, images):
    model, x = made(name, num_classes=0, global_pool="", drop_rate=0.5).eval(), images()
    again = saved_and_loaded(model)
    assert torch.equal(again(x), model(x))
    assert torch.equal(model(x), model.forward_features(x))
    if name == "mafc_v2":
        assert again(x).shape == (2, 1280, 4, 4)
    model = made(name, drop_rate=0.75, num_classes=3)
    assert torch.equal(model.forward_head(model.eval().forward_features(x)), model(x))
    dropouts = [module for module in saved_and_loaded(model).modules() if isinstance(module, torch.nn.Dropout)]
    assert [module.p for module in dropouts] == [0.75]
    reparameterize_model(model)
    assert model.forward_features(x).shape[1] == model.num_features


def test_the_head_is_restored_with_its_weights(made, images):
    whole, x = made("mafc_v3_small", seed=0, num_classes=3).eval(), images()
    save_weights(whole, "model.safetensors")
    file = {"pretrained": True, "pretrained_cfg_overlay": {"file": "model.safetensors"}}
    model = made("mafc_v3_small", num_classes=0, global_pool="", **file).eval()
    assert torch.equal(model(x), whole.forward_features(x))
    assert model.num_classes == 0
    assert not any("final_conv2" in name for name in model.state_dict())
    model.double().reset_classifier(0, "avg")
    assert list(model.state_dict()) == [name for name in whole.state_dict() if "classifier" not in name]
    expected = whole.forward_head(whole.forward_features(x), pre_logits=True)
    torch.testing.assert_close(model(x.double()).float(), expected, rtol=1e-4, atol=1e-5)
    model.float().reset_classifier(3, "avg")
    assert model(x).shape == (2, 3)
    assert "global_pool: expected 'avg' or ''" in error_of(SpecError, model.reset_classifier, 3, "")


def test_dropout_in_front_of_the_classifier(made, images):
    model, x = made("mafc_v3_small", drop_rate=0.5), images()
    features = model.forward_features(x)
    dropped, kept = (model.train(mode).forward_head(features, pre_logits=True) for mode in (True, False))
    assert 0.3 < (dropped == 0).float().mean() - (kept == 0).float().mean() < 0.7
    assert torch.allclose(dropped[dropped != 0], 2 * kept[dropped != 0])
    assert made("maam_digits", drop_rate=0.5).spec == maam.preset("maam_digits", dropout=0.5)


def test_gradient_checkpoints_run_a_stage_twice_and_update_buffers_once(made, images):
    """Statistics and counters of batch norm, and buffers of a user's own layer, as after a step without them."""
    found, x = [], images()
    for enabled in (False, True):
        model, ran = made("mafc_v3_small", seed=0).train(), []
        model.set_grad_checkpointing(enabled)
        model.backbone.stage1.register_buffer("calls", torch.zeros(()))
        model.backbone.stage1.register_forward_pre_hook(lambda stage, _, ran=ran: ran.append(stage.calls.add_(1)))
        model(x).sum().backward()
        assert len(ran) == 1 + enabled
        found.append((dict(model.named_buffers()), {name: p.grad for name, p in model.named_parameters()}))
    (buffers, gradients), (others, same) = found
    assert len(buffers) > 100
    assert all(torch.equal(buffer, others[name]) for name, buffer in buffers.items())
    assert all(torch.equal(gradient, same[name]) for name, gradient in gradients.items())


def test_groups_by_depth(made):
    model = made("mafc_v3_small")
    groups = group_parameters(model, model.group_matcher())
    first = [{name.split(".")[1] for name in groups[index]} for index in range(5)]
    assert first == [{"data_bn", "init_conv"}, *({f"stage{index}"} for index in range(1, 5))]
    last = ["backbone.final_conv2.conv.weight", "classifier.conv.weight", "classifier.conv.bias"]
    assert groups[max(groups)] == last
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.1, layer_decay=0.5)
    scales = sorted({group["lr_scale"] for group in optimizer.param_groups})
    assert scales == [0.5**i for i in range(len(groups))][::-1]


@pytest.mark.parametrize("num_classes", [3, 0])
@pytest.mark.parametrize("name", ["mafc_v3_small", "maam_digits"])
def test_fusion(name, num_classes, made, images):
    model, x = made(name, num_classes=num_classes), images(*SIZES[name])
    model(x)  # statistics that are not 0 and 1
    model.eval()
    fused = reparameterize_model(model)
    assert sum(p.numel() for p in fused.buffers()) < sum(p.numel() for p in model.buffers())
    expected, features = model(x), model.forward_features(x)
    model.reparameterize()  # of the whole model; timm fuses its layers one by one
    for other in (fused, model):
        torch.testing.assert_close(other(x), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.forward_features(x), features, rtol=1e-4, atol=1e-5)
        assert len(other.forward_intermediates(x)[1]) == len(other.feature_info)


@pytest.mark.slow_in("mafc_v3_small")
@pytest.mark.parametrize(
    ("name", "options"), [("mafc_v3_small", {}), ("maam_digits", {}), ("maam_digits", {"features_only": True})]
)
def test_export_and_compile(name, options, made, images, exported):
    model, x = made(name, **options).eval(), images(*SIZES[name])
    torch.testing.assert_close(exported(model, x), model(torch.cat((x, x[:1]))))
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))


def test_all_parameters_train(made, images, without_gradient):
    assert without_gradient(made("mafc_v3_small", num_classes=3), images()) == []
    assert without_gradient(made("maam_cifar10", in_chans=1, channels=8), images(channels=1)) == []


@pytest.mark.parametrize(
    "change", [lambda m: m.reset_classifier(5), lambda m: m.prune_intermediate_layers([0], prune_head=True)]
)
def test_a_replaced_layer_is_noticed_after_a_change_of_the_head(change, images):
    model, x = timm.create_model("maam_digits", seed=0), images(8, 1)
    model.reset_classifier(4)
    assert torch.equal(saved_and_loaded(model)(x), model.eval()(x))
    model.agents.get_submodule("0").act1 = torch.nn.GELU()
    change(model)
    changed = r"layer 'agents.0.act1' was ReLU.* and is GELU"
    with pytest.raises(WeightsError, match=changed):
        save_weights(model, "y.safetensors")
    with pytest.raises(DeploymentError, match=changed):
        model.eval().reparameterize()
