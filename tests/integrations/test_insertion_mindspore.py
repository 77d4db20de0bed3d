"""Attention layers in MindSpore networks, by `maam.mindcv.insert_attention` and `maam.mindspore.insert_attention`."""

from functools import partial

import numpy as np
import pytest

for _name in ("mindspore", "mindcv", "torch", "timm", "torchvision"):
    pytest.importorskip(_name)

import mindspore as ms  # noqa: E402
from mindcv.models.mobilenetv2 import InvertedResidual  # noqa: E402
from mindcv.models.mobilenetv3 import Bottleneck as MobileBottleneck  # noqa: E402
from mindcv.models.resnet import BasicBlock, Bottleneck  # noqa: E402
from mindcv.models.resnetv2 import PreActBottleneck  # noqa: E402

import maam  # noqa: E402
from maam import mindspore as layers  # noqa: E402
from maam.errors import SpecError  # noqa: E402
from maam.mindspore import insert_attention as insert  # noqa: E402
from tests.errors import error_of  # noqa: E402
from tests.integrations.test_insertion import MINDCV, Halving, call, inserted, shallow_resnet, shapes  # noqa: E402

pytestmark = pytest.mark.usefixtures("seeded", "mode")


def classifier(*blocks):
    """Return a chain of a convolution, blocks for 8 channels, by default two, and a classifier."""
    blocks = blocks or (BasicBlock(8, 8), BasicBlock(8, 8))
    head = (ms.nn.AdaptiveAvgPool2d(1), ms.nn.Flatten(), ms.nn.Dense(8, 10))
    return ms.nn.SequentialCell(ms.nn.Conv2d(3, 8, 3, stride=2), *blocks, *head)


def chain(*more):
    """Return a small network with a chain inside."""
    inner = ms.nn.SequentialCell(ms.nn.Conv2d(8, 8, 3), ms.nn.BatchNorm2d(8))
    return ms.nn.SequentialCell(ms.nn.Conv2d(3, 8, 3), inner, *more)


class TestMindCV:
    @pytest.mark.parametrize("block", [BasicBlock, Bottleneck, PreActBottleneck])
    def test_blocks_of_resnets(self, block):
        network = classifier(block(8, 8 // block.expansion))
        before = shapes(network)
        maam.mindcv.insert_attention(network, "mafc")
        (layer,) = inserted(network, layers.MAFC).values()
        assert layer.arguments == {"channels": 8}
        new = {p.name for p in layer.get_parameters()}
        assert {array for array in shapes(network) if array[0] not in new} == before

    @pytest.mark.slow_in("mobilenet_v1_025", "mobilenet_v2_035_96")
    @pytest.mark.parametrize("name", ["mobilenet_v3_small_075", "mobilenet_v1_025", "mobilenet_v2_035_96"])
    def test_a_mobilenet_trains(self, name, ms_images, ms_train):
        network = maam.mindcv.create_model(name, num_classes=10, attention="se")
        losses, unchanged = ms_train(network, ms_images(), steps=1)
        assert np.isfinite(losses).all()
        for gate in inserted(network, layers.SE).values():
            assert {p.name for p in gate.get_parameters()} - set(unchanged)

    @pytest.mark.parametrize("mode", ["graph"], indirect=True)
    def test_graph_mode_trains_like_pynative_mode(self, mode, ms_images, ms_train):
        ms.set_seed(0)  # other weights can leave the gate's one hidden unit without a gradient
        network, twin = (maam.mindcv.insert_attention(classifier(BasicBlock(8, 8)), "mafc") for _ in range(2))
        for p, other in zip(twin.get_parameters(), network.get_parameters(), strict=True):
            p.set_data(other.value().copy())
        losses, unchanged = ms_train(network, ms_images())
        assert not [name for name in unchanged if not name.endswith("mlp.1.weight")]
        ms.set_context(mode=ms.PYNATIVE_MODE)
        assert np.allclose(losses, ms_train(twin, ms_images())[0], rtol=1e-4)

    @pytest.mark.parametrize("attention", maam.mindcv.list_attention())
    def test_every_layer_by_name(self, attention, ms_images):
        network = maam.mindcv.insert_attention(classifier(), attention.upper())
        assert len(inserted(network)) == 2
        assert network(ms_images()).shape == (2, 10)

    def test_layer_classes_functions_channels_and_mode(self):
        class Own(maam.mindspore.layers.Layer, composite=maam.spec.se): ...

        functions = (partial(layers.MAFC, rd_ratio=1 / 8), lambda channels: layers.MAAM(channels, num_agents=1))
        for attention in (Own, *functions):
            assert len(inserted(maam.mindcv.insert_attention(classifier(), attention))) == 2
        network = maam.mindcv.insert_attention(shallow_resnet(MINDCV), Halving)
        assert [cell.channels for cell in inserted(network, Halving).values()] == [64, 128, 256, 512]
        assert not any(cell.training for cell in inserted(network, Halving).values())
        network = maam.mindcv.insert_attention(network.set_train(), "mafc")
        assert all(cell.training for cell in inserted(network, layers.MAFC).values())

    def test_features(self, ms_images):
        options = {"attention": "maf", "features_only": True, "out_indices": [1, 2]}
        network = maam.mindcv.create_model("mobilenet_v2_035_96", **options)
        assert inserted(network)
        assert [tuple(y.shape)[1] for y in network(ms_images())] == network.out_channels


class TestMindSpore:
    """`maam.mindspore.insert_attention`, also before and after that of MindCV."""

    def test_a_replaced_layer_keeps_its_names(self):
        """Blend used to rename it, so that names occurred twice and no optimizer accepted them."""
        block = MobileBottleneck(8, 16, 8, 3, use_se=True)
        before = shapes(block)
        maam.mindcv.insert_attention(block, "eca", identity_init=True)
        assert before < shapes(block)
        network = chain()
        for attention in ("se", "eca", "se"):
            before = shapes(network)
            insert(network, attention, where="1.1", identity_init=True)
            assert before < shapes(network)
        ms.nn.Momentum(network.trainable_params(), 0.1, 0.9)  # refuses equal names

    @pytest.mark.parametrize(("layer", "sizes", "channels"), [("CBAM", [8], 8), ("SimAM", [], 8), ("MAAM", [8, 5], 5)])
    def test_channels_after_layers_of_maam(self, layer, sizes, channels, ms_images):
        network = insert(ms.nn.SequentialCell(chain(getattr(layers, layer)(*sizes))), "se", where="0")
        assert network(ms_images()).shape[1] == channels

    def test_a_layer_that_starts_as_the_identity_is_not_blended(self):
        """All gradients would be 0."""
        network = insert(chain(), "gct", where="1.1", identity_init=True)
        assert list(inserted(network)) == ["1.1.attention"]
        network = insert(network, "gct", where="1.1", identity_init=True)
        assert list(inserted(network)) == ["1.1.attention.start", "1.1.attention.layer"]

    @pytest.mark.parametrize("calls", [(["1", "1.1"],), ("1", "1.1"), ("1.1", "1")])
    def test_a_chain_and_a_cell_inside(self, calls):
        network = chain()
        before = shapes(network)
        for where in calls:
            insert(network, "eca", where=where)
        assert shapes(network) == before | {(f"{name}.attention.conv.weight", (1, 1, 3)) for name in ("1", "1.1")}
        assert call(network, np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 8, 8, 8)

    def test_channels_do_not_come_from_attention(self):
        """The last batch norm of MAFC has one channel."""
        network = insert(chain(), "mafc", where="1.1")
        assert inserted(insert(network, "eca", where="1"), layers.ECA)

    def test_parameters_in_half_precision(self):
        network = chain()
        for p in network.get_parameters():
            p.set_dtype(ms.float16)
        insert(network, "mafc", where="1", identity_init=True)
        assert {p.dtype for p in network.get_parameters()} == {ms.float16}
        assert network(ms.Tensor(np.zeros((1, 3, 8, 8)), ms.float16)).dtype == ms.float16

    @pytest.mark.parametrize("level", ["O2", "O3"])
    def test_mixed_precision(self, level, ms_images):
        network = ms.amp.auto_mixed_precision(classifier(), level)
        maam.mindcv.insert_attention(network, "mafc")
        insert(network, "coord", where="*.1.bn2")
        assert [len(inserted(network, kind)) for kind in (layers.MAFC, layers.CoordAttention)] == [1, 1]
        assert all(name.startswith(("0.", "1.", "2.", "5.")) for name, _ in shapes(network))
        assert network(ms_images()).dtype == ms.float32

    @pytest.mark.parametrize("where", ["bn2", "layers.7", "layers", "layers.8"])
    def test_each_function_replaces_the_layers_of_the_other(self, where):
        def block():
            return BasicBlock(8, 8) if where == "bn2" else InvertedResidual(8, 8, 1, 2)

        network = insert(maam.mindcv.insert_attention(block(), "se"), "eca", where=where)
        assert list(map(type, inserted(network).values())) == [layers.ECA]
        if where != "layers.8":  # the new layer of MindCV
            network = maam.mindcv.insert_attention(insert(block(), "se", where=where), "eca")
            assert list(map(type, inserted(network).values())) == [layers.ECA]
            assert shapes(block()) < shapes(network)

    def test_refused_arguments(self):
        network = insert(chain(), "se", where="1.1")
        of_list = ms.nn.SequentialCell(ms.nn.CellList([ms.nn.Conv2d(3, 8, 3)]))
        for given, attention, where, message in (
            ("resnet18", "eca", "1", "insert_attention: expected a mindspore.nn.Cell, got an object of type str; "),
            (network, "eca", None, "where: expected a pattern such as 'layer*.*.bn2', or a list of patterns, got None"),
            (network, lambda c: ms.nn.Conv2d(c, 2 * c, 1), "1.1", "Conv2d turns (2, 8, 8, 8) into (2, 16, 8, 8)"),
            (network, lambda c: ms.nn.Conv2d(9, c, 1), "1.1", "attention: Conv2d cannot compute a map (2, 8, 8, 8): "),
            (
                layers.build("maam_digits"),
                "eca",
                "reduce.conv",
                "where: 'reduce.conv' belongs to a layer or model of maam",
            ),
            (chain(layers.CBAM(8)), "eca", "2.*.fc1", "where: '2.ChannelGate.fc1' belongs to a layer or model of maam"),
            (of_list, "eca", "0", "where: '0' is a CellList, not a layer, because it has no output; match"),
        ):
            before = None if isinstance(given, str) else shapes(given)
            for start in (False, True):
                assert message in error_of(SpecError, insert, given, attention, where=where, identity_init=start)
            assert before is None or shapes(given) == before
