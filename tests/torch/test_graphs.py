"""torch.compile, symbolic tracing and torch.export of layers and models, in one piece and with free sizes."""

import shutil

import pytest
import torch
import torch._dynamo.testing
from torch.export import Dim, export

from maam import spec
from maam.errors import ShapeError
from maam.torch import CBAM, MAAM, MAF, MAFB, MAFC, build
from tests.frameworks import VARIANTS

NARROW = {"channels": 8, "hidden_features": 8}
MODELS = {"maam_digits": {}, "cnn": {}, "mlp": {}, "rnn": {}, "t_cnn": NARROW, "without_agent_attention": NARROW}
CLOSE = {"rtol": 1e-4, "atol": 1e-4}  # gradients are sums of 1024 terms of size 1
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def compiled(module, backend="aot_eager", **options):
    return torch.compile(module, fullgraph=True, backend=backend, **options)


@pytest.fixture(params=[*VARIANTS, *MODELS])
def network(request, x, scramble):
    """Return a layer in every variant or a model, and a batch."""
    if request.param in VARIANTS:
        return scramble(MAAM(4, 8, **VARIANTS[request.param])), x
    model = build(spec.preset(request.param, image_size=8, **MODELS[request.param]), seed=0)
    return model, torch.randn(3, *model.spec.input_shape)


@pytest.mark.parametrize("transform", [compiled, torch.fx.symbolic_trace])
def test_layers_and_models(network, transform, step):
    model, x = network
    training = (transform is compiled) == isinstance(model, MAAM)
    expected = step(model.train(training), x)
    found = transform(model)
    torch.testing.assert_close(step(found, x), expected, **(CLOSE if transform is compiled else EXACT))
    if transform is not compiled and isinstance(model, MAAM):
        larger = torch.randn(3, 4, 12, 9)
        torch.testing.assert_close(found(larger), model(larger), **EXACT)


class TestCompile:
    @pytest.mark.slow  # tests of optimize compile with inductor, too
    @pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="inductor needs a C++ compiler")
    def test_inductor(self, x, step, scramble):
        layer = scramble(MAAM(4, 8, num_agents=2, scales=(1, 2)))
        torch.testing.assert_close(step(compiled(layer, "inductor"), x), step(layer, x), **CLOSE)

    @pytest.mark.slow
    def test_attention_in_inference(self):
        """Inductor took a permute that changes nothing for a transposition, and failed or wrote beyond its memory."""
        layer, x = build(spec.agent(16), seed=0).eval(), torch.randn(4, 16, 14, 14)
        with torch.no_grad():
            torch.testing.assert_close(compiled(layer, "inductor")(x), layer(x), **CLOSE)

    def test_dynamic_sizes_compile_once(self, scramble):
        layer = scramble(MAAM(4, scales=(1, 2, 1))).eval()
        counter = torch._dynamo.testing.CompileCounter()
        call = compiled(layer, counter, dynamic=True)
        for shape in [(2, 4, 8, 10), (3, 4, 9, 11), (5, 4, 16, 12)]:
            x = torch.randn(shape)
            torch.testing.assert_close(call(x), layer(x), **CLOSE)
        apart = torch.__version__.startswith("2.8.")  # it compiles pooling of odd sizes separately
        assert counter.frame_count == (2 if apart else 1)

    def test_mixed_precision(self, x, scramble):
        """The layer is in the middle of a network, so its input is bfloat16."""
        model = torch.nn.Sequential(torch.nn.Conv2d(4, 4, 1), scramble(MAAM(4, fusion="dynamic")))
        with torch.autocast("cpu", torch.bfloat16):
            expected = model(x)
            actual = compiled(model)(x)
        assert actual.dtype == torch.bfloat16
        torch.testing.assert_close(actual, expected, rtol=0.02, atol=0.02)

    def test_wrong_input_still_has_its_message(self):
        with pytest.raises((ShapeError, torch._dynamo.exc.Unsupported), match="expected an input"):
            torch.compile(MAAM(4), backend="eager")(torch.zeros(2, 3, 8, 8))


@pytest.mark.parametrize("gate", [MAF, MAFC, MAFB, CBAM])
def test_symbolic_traces_of_gates(gate):
    layer = gate(8).eval()
    traced = torch.fx.symbolic_trace(layer)
    for size in ((2, 8, 5, 5), (1, 8, 1, 1)):
        x = torch.randn(size)
        torch.testing.assert_close(traced(x), layer(x), **EXACT)


def test_tracing_warns_of_no_code_of_maam(scramble, recwarn):
    layer = scramble(torch.nn.Sequential(MAAM(4, scales=(1, 2, 1)), MAFC(4), MAFB(4), CBAM(4))).eval()
    traced = torch.jit.trace(layer, torch.randn(2, 4, 8, 8))
    assert [str(one.message) for one in recwarn if issubclass(one.category, torch.jit.TracerWarning)] == []
    larger = torch.randn(3, 4, 12, 9)
    torch.testing.assert_close(traced(larger), layer(larger), **CLOSE)


def free_batch(module, x, **options):
    return export(module, (x,), dynamic_shapes=({0: Dim("batch")},), **options)


class TestExport:
    def test_free_batch_names_and_dtypes(self, network):
        model, x = network
        program = free_batch(model.eval(), x[:2])
        for size in (1, 5):
            other = torch.randn(size, *x.shape[1:])
            torch.testing.assert_close(program.module()(other), model(other), **EXACT)
        assert set(program.state_dict) == set(model.state_dict())
        assert set(program.graph_signature.parameters) == {name for name, _ in model.named_parameters()}
        assert not program.graph_signature.lifted_tensor_constants
        # All values have one dtype, except the weights of the branches: autocast may change it.
        conversions = sum("aten.to" in str(node.target) for node in program.graph.nodes)
        assert conversions == (isinstance(model, MAAM) and model.agents.spec.merge == "dynamic")

    def test_strict_and_saved(self, x, scramble, tmp_path):
        layer = scramble(MAAM(4, 8, fusion="dynamic", scales=(1, 2, 1))).eval()
        torch.export.save(free_batch(layer, x, strict=True), tmp_path / "layer.pt2")
        program = torch.export.load(tmp_path / "layer.pt2")
        torch.testing.assert_close(program.module()(x[:1]), layer(x[:1]), **EXACT)

    @pytest.mark.parametrize("options", [{"scales": (1, 2, 1), "pool": 2}, {"scales": (1, 2, 2)}], ids=str)
    def test_free_height_and_width(self, x, scramble, options):
        layer = scramble(MAAM(4, **options)).eval()
        program = export(layer, (x,), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},))
        for size in ((13, 10), (20, 13)):
            other = torch.randn(3, 4, *size)
            torch.testing.assert_close(program.module()(other), layer(other), **EXACT)

    def test_train_mode_updates_statistics(self, x, scramble):
        layer = scramble(MAAM(4))
        program = free_batch(layer, x).module()
        torch.testing.assert_close(program(x), layer(x), rtol=1e-6, atol=1e-6)
        for name, buffer in layer.named_buffers():
            torch.testing.assert_close(program.get_buffer(name), buffer)
