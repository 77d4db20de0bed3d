"""`maam.mindspore.insert_attention` in networks of one's own, also before and after that of MindCV."""

from re import escape

import numpy as np
import pytest

from maam.errors import SpecError

ms = pytest.importorskip("mindspore")
pytest.importorskip("mindcv")
for _name in ("torch", "timm", "torchvision"):
    pytest.importorskip(_name)

from mindcv.models.mobilenetv2 import InvertedResidual  # noqa: E402
from mindcv.models.mobilenetv3 import Bottleneck as MobileBottleneck  # noqa: E402

import maam.mindcv  # noqa: E402
import maam.mindspore.layers  # noqa: E402
from tests.integrations.test_insertion import (  # noqa: E402
    MINDCV,
    BasicBlock,
    call,
    fill,
    inserted,
    new_layers,
    shapes,
    two_blocks,
)

pytestmark = pytest.mark.usefixtures("seeded", "mode")


def ms_chain():
    """Return a small MindSpore network with a chain inside."""
    cell = ms.nn
    return cell.SequentialCell(cell.Conv2d(3, 8, 3), cell.SequentialCell(cell.Conv2d(8, 8, 3), cell.BatchNorm2d(8)))


class TestMindSpore:
    """`maam.mindspore.insert_attention`, also before and after that of MindCV."""

    insert = staticmethod(maam.mindspore.insert_attention)

    def test_a_replaced_layer_keeps_its_names(self):
        """Blend used to rename it, so that names occurred twice and no optimizer accepted them."""
        block = MobileBottleneck(8, 16, 8, 3, use_se=True)
        before = shapes(block)
        maam.mindcv.insert_attention(block, "eca", identity_init=True)
        assert before < shapes(block)
        network = ms_chain()
        for attention in ("se", "eca", "se"):
            before = shapes(network)
            self.insert(network, attention, where="1.1", identity_init=True)
            assert before < shapes(network)
        ms.nn.Momentum(network.trainable_params(), 0.1, 0.9)  # refuses equal names

    @pytest.mark.parametrize(("layer", "channels"), [("CBAM", 8), ("SimAM", 8), ("MAAM", 5)])
    def test_channels_after_layers_of_maam(self, layer, channels, ms_images):
        options = {"SimAM": (), "MAAM": (8, 5)}.get(layer, (8,))
        cells = ms.nn.SequentialCell(*ms_chain(), getattr(maam.mindspore, layer)(*options))
        network = self.insert(ms.nn.SequentialCell(cells), "se", where="0")
        assert network(ms_images()).shape[1] == channels

    def test_a_layer_that_starts_as_the_identity_is_not_blended(self):
        """All gradients would be 0."""
        network = self.insert(ms_chain(), "gct", where="1.1", identity_init=True)
        assert new_layers(network) == ["1.1.attention"]
        network = self.insert(network, "gct", where="1.1", identity_init=True)
        assert new_layers(network) == ["1.1.attention.start", "1.1.attention.layer"]

    def test_a_checkpoint_loads_with_identity_init(self, tmp_path):
        options = {"num_classes": 3, "attention": "eca", "identity_init": True}
        network, path = maam.mindcv.create_model(MINDCV.mobilenet, **options), str(tmp_path / "network.ckpt")
        fill(network.get_parameters(), 0.5)
        ms.save_checkpoint(network, path)
        same = maam.mindcv.create_model(MINDCV.mobilenet, **options, checkpoint_path=path)
        assert all((p.asnumpy() == 0.5).all() for p in same.get_parameters())

    @pytest.mark.parametrize("calls", [(["1", "1.1"],), ("1", "1.1"), ("1.1", "1")])
    def test_a_chain_and_a_cell_inside(self, calls):
        network = ms_chain()
        before = shapes(network)
        for where in calls:
            self.insert(network, "eca", where=where)
        assert shapes(network) == before | {(f"{name}.attention.conv.weight", (1, 1, 3)) for name in ("1", "1.1")}
        assert call(network, np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 8, 8, 8)

    def test_a_list_is_no_layer(self):
        network = ms.nn.SequentialCell(ms.nn.CellList([ms.nn.Conv2d(3, 8, 3)]))
        with pytest.raises(SpecError, match="where: '0' is a CellList, not a layer, because it has no output; match"):
            self.insert(network, "eca", where="0")

    def test_channels_do_not_come_from_attention(self):
        """The last batch norm of MAFC has one channel."""
        network = self.insert(ms_chain(), "mafc", where="1.1")
        assert inserted(self.insert(network, "eca", where="1"), maam.mindspore.ECA)

    def test_parameters_in_half_precision(self):
        network = ms_chain()
        for p in network.get_parameters():
            p.set_dtype(ms.float16)
        self.insert(network, "mafc", where="1", identity_init=True)
        assert {p.dtype for p in network.get_parameters()} == {ms.float16}
        assert network(ms.Tensor(np.zeros((1, 3, 8, 8)), ms.float16)).dtype == ms.float16

    @pytest.mark.parametrize("level", ["O2", "O3"])
    def test_mixed_precision(self, level, ms_images):
        network = ms.amp.auto_mixed_precision(two_blocks(), level)
        maam.mindcv.insert_attention(network, "mafc")
        self.insert(network, "coord", where="*.1.bn2")
        assert [len(inserted(network, kind)) for kind in (maam.mindspore.MAFC, maam.mindspore.CoordAttention)] == [1, 1]
        assert all(name.startswith(("0.", "1.", "2.", "5.")) for name, _ in shapes(network))
        assert network(ms_images()).dtype == ms.float32

    @pytest.mark.parametrize("where", ["bn2", "layers.7", "layers", "layers.8"])
    def test_each_function_replaces_the_layers_of_the_other(self, where):
        def block():
            return BasicBlock(8, 8) if where == "bn2" else InvertedResidual(8, 8, 1, 2)

        network = maam.mindcv.insert_attention(block(), "se")
        self.insert(network, "eca", where=where)
        assert [type(cell) for cell in inserted(network, maam.mindspore.layers.Layer)] == [maam.mindspore.ECA]
        if where != "layers.8":  # the new layer of MindCV
            network = maam.mindcv.insert_attention(self.insert(block(), "se", where=where), "eca")
            assert [type(cell) for cell in inserted(network, maam.mindspore.layers.Layer)] == [maam.mindspore.ECA]
            assert shapes(block()) < shapes(network)

    @pytest.mark.parametrize(
        ("network", "attention", "where", "message"),
        [
            ("resnet18", "eca", "1", "insert_attention: expected a mindspore.nn.Cell, got an object of type str; "),
            (None, "eca", None, "where: expected a pattern such as 'layer*.*.bn2', or a list of patterns, got None"),
            (None, lambda c: ms.nn.Conv2d(c, 2 * c, 1), "1.1", "Conv2d turns (2, 8, 8, 8) into (2, 16, 8, 8)"),
            (None, lambda c: ms.nn.Conv2d(9, c, 1), "1.1", "attention: Conv2d cannot compute a map (2, 8, 8, 8): "),
            ("maam_digits", "eca", "reduce.conv", "where: 'reduce.conv' belongs to a layer or model of maam"),
            ("CBAM", "eca", "2.*.fc1", "where: '2.ChannelGate.fc1' belongs to a layer or model of maam"),
        ],
    )
    def test_refused_arguments(self, network, attention, where, message):
        match network:
            case None:
                network = self.insert(ms_chain(), "se", where="1.1")
            case "maam_digits":
                network = maam.mindspore.build(network)
            case "CBAM":
                network = ms.nn.SequentialCell(*ms_chain(), maam.mindspore.CBAM(8))
        before = None if isinstance(network, str) else shapes(network)
        for start in (False, True):
            with pytest.raises(SpecError, match=escape(message)):
                self.insert(network, attention, where=where, identity_init=start)
        assert before is None or shapes(network) == before
