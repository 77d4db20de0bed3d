"""torch.export with a free batch, and with free height and width."""

import pytest
import torch
from torch.export import Dim, export

from maam import spec
from maam.torch import MAAM, build

EXACT = {"rtol": 0, "atol": 0}


def free_batch(module, x, **options):
    return export(module, (x,), dynamic_shapes=({0: Dim("batch")},), **options)


def targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.fixture(scope="module")
def exported(variant, scramble):
    """A layer in eval mode, and its program."""
    layer = scramble(MAAM(4, 8, **variant)).eval()
    return layer, free_batch(layer, torch.randn(2, 4, 8, 8))


def test_batch(exported):
    layer, program = exported
    for size in (1, 5):
        x = torch.randn(size, 4, 8, 8)
        torch.testing.assert_close(program.module()(x), layer(x), **EXACT)


def test_parameters_keep_their_names(exported):
    layer, program = exported
    assert set(program.state_dict) == set(layer.state_dict())
    assert set(program.graph_signature.parameters) == {name for name, _ in layer.named_parameters()}


def test_graph_has_no_conversions(exported):
    """One dtype throughout: whatever converts would stand in every exported and converted model."""
    layer, program = exported
    allowed = 1 if layer.agents.spec.merge == "dynamic" else 0  # its weights, where autocast may differ
    assert sum("aten.to" in target for target in targets(program)) == allowed


def test_strict_and_saved(x, scramble, tmp_path):
    layer = scramble(MAAM(4, 8, fusion="dynamic", scales=(1, 2, 1))).eval()
    torch.export.save(free_batch(layer, x, strict=True), tmp_path / "layer.pt2")
    program = torch.export.load(tmp_path / "layer.pt2")
    torch.testing.assert_close(program.module()(x[:1]), layer(x[:1]), **EXACT)


def test_height_and_width(x, scramble):
    layer = scramble(MAAM(4, scales=(1, 2, 1), pool=2)).eval()
    program = export(layer, (x,), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},))
    other = torch.randn(3, 4, 13, 10)
    torch.testing.assert_close(program.module()(other), layer(other), **EXACT)


def test_train_mode_updates_statistics(x, scramble):
    layer = scramble(MAAM(4))
    program = free_batch(layer, x).module()
    torch.testing.assert_close(program(x), layer(x), rtol=1e-6, atol=1e-6)
    for name, buffer in layer.named_buffers():
        torch.testing.assert_close(program.get_buffer(name), buffer)


@pytest.mark.parametrize("name", ["maam_digits", "cnn", "mlp", "rnn"])
def test_models(name):
    model = build(spec.preset(name, image_size=8), seed=0).eval()
    program = free_batch(model, torch.randn(2, *model.spec.input_shape))
    x = torch.randn(5, *model.spec.input_shape)
    torch.testing.assert_close(program.module()(x), model(x), **EXACT)
    assert set(program.state_dict) == set(model.state_dict())
    assert not program.graph_signature.lifted_tensor_constants
