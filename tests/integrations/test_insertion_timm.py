"""Attention layers in timm alone: its own arguments and functions, vision transformers, and MAAM as their stem."""

from functools import partial

import pytest

torch, timm = map(pytest.importorskip, ("torch", "timm"))

from timm.layers import DropPath, create_attn  # noqa: E402
from timm.models.resnet import BasicBlock, ResNet  # noqa: E402
from timm.utils import reparameterize_model  # noqa: E402
from torch import nn  # noqa: E402

from maam import spec  # noqa: E402
from maam.errors import ShapeError, SpecError  # noqa: E402
from maam.timm import MAAMEmbed, TokenMap, create_model, insert_attention, list_attention  # noqa: E402
from maam.torch import CBAM, MAAM, MAF, MAFC, SE  # noqa: E402
from maam.torch.layers import Layer  # noqa: E402
from tests.errors import error_of  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded")


def resnet(**options):
    return ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, channels=(8, 16, 16, 16), stem_width=8, **options)


def vit(**options):
    """Build a vision transformer of two blocks for images of 16x16, with patches of 4x4 and one register token."""
    given = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
    return timm.models.VisionTransformer(**{**given, "reg_tokens": 1, **options})


def inserted(network, kind=Layer):
    return {name: module for name, module in network.named_modules() if isinstance(module, kind)}


class Half(nn.Module):
    def forward(self, x):
        return x / 2


class TestFunctions:
    """Functions of timm work on networks with layers of maam."""

    def test_features_only(self, images):
        make = partial(create_model, features_only=True, attention="mafc")
        extractor = make("resnet10t", out_indices=(1, 2))
        assert [m.shape[1] for m in extractor(images())] == [64, 128]
        assert list(inserted(extractor)) == ["layer1.0.se", "layer2.0.se"]
        mobile = make("mobilenetv3_small_050")
        assert len(inserted(mobile)) == 9
        assert len(mobile(images())) == 5

    @pytest.mark.parametrize("attention", ["mafc", "maam"])
    def test_fusion(self, attention, images):
        """timm fuses its layers, and also the inserted ones, copied or not."""
        network, x = insert_attention(resnet(), attention), images()
        network(x)  # statistics that are not 0 and 1
        fused = reparameterize_model(network.eval())
        found = inserted(fused)
        assert len(found) == 4
        assert not any(inserted(layer, nn.BatchNorm2d) for layer in found.values())
        torch.testing.assert_close(fused(x), network(x), rtol=1e-4, atol=1e-5)

    def test_onnx(self):
        _, runtime = map(pytest.importorskip, ("onnxscript", "onnxruntime"))
        block, x = insert_attention(BasicBlock(8, 8), "mafc").eval(), torch.rand(2, 8, 16, 16)
        torch.onnx.export(block, (x,), "model.onnx", dynamo=True, verbose=False)
        session = runtime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), block(x), rtol=1e-4, atol=1e-5)


class TestArguments:
    """`attn_layer` and `se_layer` accept our classes; timm finds out which arguments each one accepts."""

    @pytest.mark.parametrize("layer", [MAF, MAFC, SE, CBAM])
    def test_resnet(self, layer, images, without_gradient):
        network = resnet(block_args={"attn_layer": layer})
        assert len(inserted(network, layer)) == 4
        assert without_gradient(network, images()) == []

    @pytest.mark.parametrize(("layer", "reduced"), [(MAFC, True), (MAAM, False)])
    def test_efficientnet(self, layer, reduced, images, without_gradient):
        network = timm.create_model("semnasnet_050", num_classes=3, se_layer=layer)
        found = network.blocks[2][0].se
        assert ("rd_ratio" in found.arguments) == reduced
        assert found.arguments["act_layer"] == "relu"
        assert without_gradient(network, images()) == []

    @pytest.mark.parametrize("layer", [MAFC, CBAM])
    def test_create_attn(self, layer):
        made = create_attn(layer, 16, rd_ratio=1 / 8, act_layer=nn.SiLU, gate_layer=nn.Hardsigmoid)
        assert made(torch.rand(2, 16, 4, 4)).shape == (2, 16, 4, 4)


def test_refused_networks():
    own = timm.create_model("mafc_v2", cifar=True, width_multiplier=0.25)
    parallel = vit(block_fn=timm.models.vision_transformer.ParallelScalingBlock)
    for network, message in (
        (own, "PresetModel: the spec of a model of maam determines its attention; ch"),
        (vit(patch_drop_rate=0.5), "network drops patches, so its tokens are not a map; use patch_drop_rate=0"),
        (parallel, "VisionTransformer: found no block for an attention layer"),
    ):
        assert message in error_of(SpecError, insert_attention, network, "mafc")


class TestTokenMap:
    def test_rows_and_columns(self):
        """The layer gets each token at its row and column; the prefix is not changed."""
        layer, seen, tokens = Half(), [], torch.rand(2, 1 + 2 * 3, 5)
        layer.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs))
        found = TokenMap(layer, (2, 3), 1)(tokens)
        assert seen[0].shape == (2, 5, 2, 3)
        assert torch.equal(seen[0][:, :, 1, 2], tokens[:, 1 + 1 * 3 + 2])
        assert torch.equal(found[:, :1], tokens[:, :1])
        assert torch.equal(found[:, 1:], tokens[:, 1:] / 2)

    def test_other_numbers_of_tokens(self):
        """Without a prefix, and of another square; of no square there is no map."""
        for prefix, count in ((0, 4), (1, 10)):
            assert TokenMap(MAFC(8), (2, 2), prefix)(torch.rand(2, count, 8)).shape == (2, count, 8)
            assert f"grid_size=(2, 2), num_prefix_tokens={prefix}" in repr(TokenMap(nn.Identity(), (2, 2), prefix))
        for grid, count in (((2, 2), 7), ((2, 8), 9), ((2, 3), 10)):
            message = "expected 1 prefix tokens and a map of {}x{}, got {} tokens".format(*grid, count)
            assert message in error_of(ShapeError, TokenMap(MAFC(8), grid, 1), torch.rand(2, count, 8))


class TestVisionTransformer:
    @pytest.mark.parametrize("attention", list_attention())
    def test_every_layer_trains_in_every_block(self, attention, images, without_gradient):
        network = insert_attention(vit(), attention)
        maps = [block.drop_path2.attention for block in network.blocks]
        assert all(isinstance(m.layer, Layer) and m.grid_size == (4, 4) and m.num_prefix_tokens == 2 for m in maps)
        assert without_gradient(network, images(16)) == []

    def test_the_layer_is_in_the_branch_and_skips_the_prefix(self):
        network, tokens = vit().eval(), torch.rand(2, 18, 16)
        block = network.blocks[0]
        plain, half = block(tokens), tokens + block.attn(block.norm1(tokens))
        insert_attention(network, lambda channels: Half())
        branch, found = plain - half, block(tokens)
        torch.testing.assert_close(found[:, :2], plain[:, :2])
        torch.testing.assert_close(found[:, 2:], half[:, 2:] + branch[:, 2:] / 2)

    def test_weights_of_the_plain_network(self):
        plain, network = vit(drop_path_rate=0.1), insert_attention(vit(), "mafc")
        found = network.load_state_dict(plain.state_dict(), strict=False)
        assert found.unexpected_keys == []
        assert all(".drop_path2.attention.layer." in key for key in found.missing_keys)
        other = insert_attention(plain, "mafc")  # its stochastic depth has no weights
        assert list(other.state_dict()) == list(network.state_dict())
        insert_attention(other, "se")
        assert isinstance(other.blocks[1].drop_path2.drop_path, DropPath)
        assert not any("SpatialGate" in key for key in other.state_dict())

    def test_by_name_and_as_features(self, images):
        options = {"img_size": 32, "depth": 2, "num_classes": 3, "attention": "mafc"}
        for embed in ({}, {"embed_layer": MAAMEmbed}):
            assert create_model("vit_tiny_patch16_224", **options, **embed)(images()).shape == (2, 3)
        extractor = create_model("vit_tiny_patch16_224", features_only=True, out_indices=(1,), **options)
        assert extractor(images())[0].shape == (2, 192, 2, 2)

    def test_images_of_other_sizes(self, images):
        network = insert_attention(vit(dynamic_img_size=True), "mafc")
        assert network(images(32)).shape == (2, 3)
        wide = torch.rand(2, 3, 16, 32)
        assert "a map of 4x4" in error_of(ShapeError, network, wide)
        assert insert_attention(vit(img_size=(16, 32)), "mafc")(wide).shape == (2, 3)

    def test_export(self, images, exported):
        network = insert_attention(vit(embed_layer=MAAMEmbed, depth=1), partial(MAAM, depthwise=True)).eval()
        x = images(16)
        torch.testing.assert_close(exported(network, x), network(torch.cat((x, x[:1]))))


class TestEmbedding:
    def test_trains(self, images, without_gradient):
        network = vit(embed_layer=MAAMEmbed)
        assert network.patch_embed.backbone.spec == spec.maam_stem(3, (16,), 16)
        assert (network.patch_embed.num_patches, network.patch_embed.grid_size) == (16, (4, 4))
        assert network(images(16)).shape == (2, 3)
        assert without_gradient(network, images(16)) == []
        found = network.load_state_dict(vit().state_dict(), strict=False)
        assert found.unexpected_keys == ["patch_embed.proj.weight", "patch_embed.proj.bias"]
        assert all(key.startswith("patch_embed.backbone") for key in found.missing_keys)

    @pytest.mark.parametrize(("patch", "widths"), [(4, [64]), (8, [32, 64]), (16, [16, 32, 64]), (32, [8, 16, 32, 64])])
    def test_widths(self, patch, widths):
        embed = MAAMEmbed(64, patch, embed_dim=64)
        assert embed.backbone.spec == spec.maam_stem(3, tuple(widths), 64)
        assert embed(torch.rand(1, 3, 64, 64)).shape == (1, (64 // patch) ** 2, 64)
        assert embed.feat_ratio() == patch

    def test_options(self, images):
        stem = {"fusion": "dynamic", "depthwise": False, "num_agents": 2}
        network = vit(embed_layer=partial(MAAMEmbed, channels=[8], stem=stem), in_chans=1)
        assert network.patch_embed.backbone.spec == spec.maam_stem(1, 8, 16, **stem)
        assert network(images(16, 1)).shape == (2, 3)
        assert MAAMEmbed(16, 4, device="cpu", dtype=torch.float64)(images(16).double()).dtype == torch.float64

    def test_other_sizes(self, images):
        network = vit(embed_layer=MAAMEmbed)
        network.set_input_size((32, 32))
        assert network(images(32)).shape == (2, 3)
        assert vit(embed_layer=MAAMEmbed, dynamic_img_size=True)(images(24)).shape == (2, 3)
        assert "is too small" in error_of(ShapeError, MAAMEmbed, 8, 16)

    def test_invalid_arguments(self):
        for options, message in (
            ({"patch_size": 14}, "patch_size: expected a power of two of at least 4, got 14"),
            ({"patch_size": 2}, "patch_size: expected a power of two of at least 4, got 2"),
            ({"patch_size": (16, 8)}, "patch_size: expected a power of two of at least 4, got (16, 8)"),
            ({"channels": [8, 8]}, "channels: expected 3 widths for patch_size 16, got 2: (8, 8)"),
            ({"stem": {"fusion": "max"}}, "fusion: input should be 'softmax', 'mean' or 'dynamic', got 'max'"),
            ({"stem": {"pool": 2}}, "maam_stem: pool: no such argument"),
        ):
            assert message in error_of(SpecError, MAAMEmbed, 32, **options)
