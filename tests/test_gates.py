"""Gates and attention: parity, statistics, edge cases, invalid arguments, and their graphs in PyTorch and ONNX."""

import inspect
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from maam import spec
from maam.backend.registry import make_runners
from maam.errors import ShapeError, SpecError
from maam.parity import check
from maam.reference import ReferenceModel
from tests import frameworks

GATES = {"MAF": spec.maf, "MAFC": spec.mafc, "MAFB": spec.mafb, "SE": spec.se, "CBAM": spec.cbam}
ATTENTION = {"ESE": spec.ese, "ECA": spec.eca, "GC": spec.gc, "GE": spec.ge, "GCT": spec.gct, "SK": spec.sk}
ATTENTION |= {"BAM": spec.bam, "ScSE": spec.scse, "CoordAttention": spec.coord, "SimAM": spec.simam, "LKA": spec.lka}
ATTENTION |= {"TripletAttention": spec.triplet, "VANAttention": spec.van, "SGE": spec.sge, "EMA": spec.ema}
ATTENTION |= {"ShuffleAttention": spec.shuffle, "MRAP": spec.mrap, "SoftmaxAttention": spec.mhsa}
ATTENTION |= {"AgentAttention": spec.agent}
LAYERS = {**GATES, **ATTENTION}
QUICK = "CoordAttention"
"""The module whose parity `make test` checks in all modes; `make test-all` checks all modules."""
TINY = spec.preset("mafc_v3_small", width_multiplier=0.25, num_classes=3)
STAGES = ["exchange", "layers", "forward", "gradients", "precision"]
STATISTICS = [("avg", "std", "max"), "avg", "std", "max", ("max", "std")]
slow = pytest.mark.slow


@pytest.fixture(params=["torch", "mindspore"])
def framework(request):
    return frameworks.make(request.param)


def maps(shape, value=None):
    x = np.random.default_rng(0).standard_normal(shape) if value is None else np.full(shape, value)
    return x.astype(np.float32)


def run(framework, layer, x, training=False):
    framework.train(layer, training)
    return framework.call(layer, x)


CASES = [(gate(channels), STAGES) for channels in (8, 32) for gate in GATES.values()]
CASES += [(spec.mafc(8, pool_types=types), STAGES[:3]) for types in STATISTICS]


@pytest.mark.parametrize(("node", "stages"), [(spec.mafc(8), STAGES), *(pytest.param(*c, marks=slow) for c in CASES)])
def test_parity(node, stages):
    pytest.importorskip("torch")
    report = check(node, compiled=False, stages=stages)
    assert report.passed, report.to_markdown()


@pytest.mark.parametrize("name", [pytest.param(name, marks=[slow] * (name != QUICK)) for name in ATTENTION])
@pytest.mark.parametrize(
    "shape", [(8, 5, 7), *(pytest.param(s, marks=slow) for s in [(16, 1, 1), (2, 6, 6), (1, 4, 5)])]
)
@pytest.mark.parametrize("batch_size", [4, pytest.param(1, marks=slow)])
def test_parity_of_attention(name, shape, batch_size):
    """Odd maps, 1x1 maps, one and two channels, one image; the slow test also compiles with PyTorch."""
    pytest.importorskip("torch")
    if (name, shape[0]) == ("ShuffleAttention", 1):
        pytest.skip("it halves the channels")
    node = ATTENTION[name](shape[0])
    pooled = shape[1:] == (1, 1) or name in ("BAM", "SK")  # these two normalize means over the whole map
    if batch_size == 1 and pooled and any(n.kind == "batch_norm2d" for _, n in node.walk()):
        pytest.skip("batch norm needs more than one value")
    single = name == "AgentAttention" and shape[0] < 16  # one channel per head: PyTorch 2.14 ends the process
    batch = {"images": maps((batch_size, *shape)), "labels": np.zeros(batch_size, np.int32), "batch_size": batch_size}
    report = check(node, compiled=name != QUICK and not single, stages=STAGES[:4], **batch)
    assert report.passed, report.to_markdown()


MAPS = [(name, shape) for name in ("MAF", "MAFC", "MAFB") for shape in [(4, 1, 1), (4, 5, 5), (1, 3, 3)]]


@pytest.mark.parametrize(("name", "shape"), [MAPS[0], *(pytest.param(*case, marks=slow) for case in MAPS[1:])])
def test_constant_maps_have_finite_outputs_and_gradients(name, shape):
    node = GATES[name](shape[0])
    for runner in make_runners(node, spec.draw(node.parameters(), 0), compiled=False)[0]:
        for value in (0.0, 0.5, -3.0):
            x = np.full((2, *shape), value, np.float32)
            assert np.isfinite(runner.forward(x)).all()
            found = runner.gradients(x, np.ones_like(x))
            assert all(np.isfinite(array).all() for array in (found.input, *found.parameters.values()))


def test_standard_deviation_in_half_precision_does_not_overflow(framework):
    layer = framework.maam.build(spec.Sequential(children={"std": spec.GlobalPool(function="std")}))
    x = np.array([300.0, -300.0] * 32, np.float32).reshape(1, 1, 8, 8)  # their squares overflow float16
    found = framework.call(layer, x.astype(np.float16)).astype(np.float32)
    np.testing.assert_allclose(found.reshape(()), x.std(ddof=1), rtol=1e-3)


HALVES = {"gct": (spec.gct(64), 2.5), "gct l1": (spec.gct(64, mode="l1"), 30.0), "simam": (spec.simam(), 1000.0)}
HALVES |= {"sge": (spec.sge(64, groups=4), 300.0)}
"""Attention of squares and sums, and the standard deviation of a map for which they overflow float16."""


@pytest.mark.parametrize("name", HALVES)
def test_attention_in_half_precision_does_not_overflow(framework, name):
    """GCT, which starts as the identity, returns its input bit for bit."""
    node, deviation = HALVES[name]
    x = (np.abs(maps((1, 64, 112, 112))) * deviation).astype(np.float16)
    layer = framework.maam.build(node, seed=0, dtype=framework.dtype("float16"))
    found = framework.call(layer, x)
    expected = ReferenceModel(node, spec.draw(node.parameters(), 0))(x.astype(np.float64))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=2e-3, atol=1e-3 * np.abs(expected).max())
    if name.startswith("gct"):
        np.testing.assert_array_equal(found, x)


def test_the_table_in_the_documentation():
    page = (Path(__file__).parents[1] / "docs" / "gates.md").read_text()
    for name, composite in {**LAYERS, "MAAM": spec.maam}.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` | {composite.__name__} |"))
        assert row.endswith(f"| {composite(256).num_parameters:,} | {composite(256).macs((256, 14, 14)):,} |")


@pytest.mark.parametrize("name", LAYERS)
def test_signatures_and_errors_of_layer_classes(framework, name):
    make, device = getattr(framework.maam, name), ["device", "dtype"] if framework.name == "torch" else []
    assert list(inspect.signature(make).parameters) == [*inspect.signature(LAYERS[name]).parameters, *device]
    for channels in (0, -1, 2.5, "16"):
        with pytest.raises(SpecError, match=rf"^{LAYERS[name].__name__}: channels: input should be "):
            make(channels)
    with pytest.raises(ShapeError, match=r"^expected an input \(N, 16, H, W\), got \(2, 8, 5, 5\)$"):
        run(framework, make(16), maps((2, 8, 5, 5)))


SHAPES_OF_GATES = [(2, 1, 5, 4), (2, 3, 5, 4), (2, 15, 5, 4), (1, 16, 5, 4), (2, 16, 1, 1), (1, 16, 1, 2)]
SHAPES_OF_ATTENTION = [(2, 16, 5, 4), (1, 2, 3, 6), (1, 16, 1, 2), (2, 4, 1, 1)]
EDGE_CASES = [*product(GATES, SHAPES_OF_GATES), *product(ATTENTION, SHAPES_OF_ATTENTION)]
EDGE_CASES += product(["MAFC", "MAFB", "CBAM"], [(1, 16, 1, 1)])
ONE_VALUE = r"bn.*: expected more than 1 value per channel when training, got .*; use a larger"


@pytest.mark.parametrize(("name", "shape"), EDGE_CASES, ids=str)
def test_edge_cases_have_finite_outputs_and_statistics(framework, name, shape):
    """Random and constant maps. One value per channel cannot be trained with, and changes no running statistics."""
    layer = getattr(framework.maam, name)(shape[1])
    one_value = shape[0] == 1 and (shape[2:] == (1, 1) or name in ("BAM", "SK"))  # these two normalize pooled maps
    for value, training in product((None, 0.0, 1.0, -7.5), (False, True)):
        if training and one_value:
            before = framework.read(layer)
            with pytest.raises(ShapeError, match=ONE_VALUE):
                run(framework, layer, maps(shape, value), training)
            np.testing.assert_equal(framework.read(layer), before)
        else:
            y = run(framework, layer, maps(shape, value), training)
            assert y.shape == shape
            assert np.isfinite(y).all()
    assert all(np.isfinite(array).all() for array in framework.read(layer).values())


def test_the_error_names_the_layer_with_one_value(framework):
    model, x = framework.maam.build(TINY, seed=0), maps((1, 3, 8, 8))
    with pytest.raises(ShapeError, match=r"^backbone\.stage2\.unit1\.conv2\.bn: expected more than 1 value"):
        run(framework, model, x, training=True)
    assert run(framework, model, x).shape == (1, 3)


NOT_EXPORTED = {"ESE": "no HSigmoid", "GCT": "no Reciprocal", "VANAttention": "no Erf"}
NOT_EXPORTED |= {"ECA": "loses the padding of the convolution over the channels"}
SIZE = (16, 7, 9)
EXPORTED = [("MAF", {}, SIZE), ("MAFC", {}, SIZE), ("EMA", {}, SIZE), ("MAFC", {}, (8, 1, 1))]
EXPORTED += [("CoordAttention", {"act_layer": "relu"}, SIZE)]  # MindSpore cannot export its hard swish
"""The modules whose export `make test` checks."""
SLOW_EXPORTS = [(name, {}, SIZE) for name in LAYERS if name not in (one for one, *_ in EXPORTED)]
SLOW_EXPORTS += [("MAFC", {"pool_types": ("avg", "std", "max")}, SIZE), ("MAF", {"pool_types": "std"}, SIZE)]
EXPORTED += [pytest.param(*case, marks=slow) for case in SLOW_EXPORTS]
ignore_exporter = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@ignore_exporter
@pytest.mark.parametrize(("name", "options", "shape"), EXPORTED, ids=str)
def test_onnx(framework, name, options, shape, tmp_path):
    """The file has only standard operators, and ONNX Runtime computes the same; from PyTorch, for any batch size."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    if framework.name == "mindspore" and name in NOT_EXPORTED:
        pytest.skip(f"MindSpore's ONNX exporter: {NOT_EXPORTED[name]}")
    layer, path = getattr(framework.maam, name)(shape[0], **options), str(tmp_path / "gate.onnx")
    framework.train(layer, False)
    x = framework.tensor(maps((2, *shape)))
    if framework.name == "torch":
        pytest.importorskip("onnxscript")
        batch = ({0: framework.torch.export.Dim("batch")},)
        framework.torch.onnx.export(layer, (x,), path, dynamo=True, dynamic_shapes=batch, verbose=False)
    else:
        framework.ms.export(layer, x, file_name=path.removesuffix(".onnx"), file_format="ONNX")
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert {one.domain for one in (*model.graph.node, *model.opset_import)} <= {"", "ai.onnx"}
    assert not model.functions
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 2, 5) if framework.name == "torch" else (2,):
        x = maps((count, *shape))
        x[-1] = 0.5  # a constant map
        (found,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(found, framework.call(layer, x), rtol=1e-5, atol=1e-5)


@ignore_exporter
@pytest.mark.parametrize("composite", ATTENTION.values())
def test_graphs_of_pytorch(composite):
    """Compilation without breaks, symbolic tracing, and export for any batch size compute the same."""
    torch = pytest.importorskip("torch")
    from maam.torch import build

    model = build(composite(8), seed=0).eval()
    x = torch.as_tensor(maps((2, 8, 6, 5)))
    expected = model(x)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), expected)
    torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), expected)
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (x,), dynamic_shapes=batch).module()
    torch.testing.assert_close(exported(torch.cat((x, x[:1])))[:2], expected)
