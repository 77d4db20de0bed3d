"""The attention modules against their published code, timm and equations: outputs, gradients and parameter names.

tests/published/attention.npz has the float64 outputs of the authors' code in eval and in train mode and its input
gradients, for weights, an input and a cotangent drawn from a seed.
"""

import importlib
import json
from pathlib import Path
from re import escape

import numpy as np
import pytest

from maam import spec
from maam.errors import MissingFrameworkError, SpecError
from maam.fusion import fuse
from maam.fusion.rewrite import is_fusible
from maam.reference import ReferenceModel
from tests.test_published import draw_arrays, torch_model

CLOSE = 1e-9
"""The largest difference, as a share of the largest value."""
with np.load(Path(__file__).parent / "published" / "attention.npz") as _file:
    ARRAYS = {name: array for name, array in _file.items() if name != "cases"}
    PUBLISHED = json.loads(str(_file["cases"]))
NODES = {
    "bam": spec.bam(32),
    "coord": spec.coord(16, rd_ratio=1 / 4),
    "ema": spec.ema(32, groups=8),
    "gct_l1": spec.gct(10, mode="l1"),
    "gct_l2": spec.gct(10),
    "lka": spec.lka(6),
    "lka_attention": spec.van(6),
    "mrap_avg_max_odd": spec.mrap(18, pool_types=("avg", "max"), rates=(0.3, 0.7)),
    "mrap_avg_std": spec.mrap(32),
    "mrap_three": spec.mrap(20, 1 / 4, pool_types=("avg", "std", "max"), rates=(0.3, 0.5, 0.2)),
    "sge": spec.sge(16, groups=4),
    "shuffle_attention": spec.shuffle(32, groups=4),
    "simam": spec.simam(6),
    "triplet": spec.triplet(12),
    "triplet_no_spatial": spec.triplet(6, spatial=False),
}


def drawn(case):
    """Return the weights by published key, the input and the cotangent, all drawn from the seed of the case."""
    rng = np.random.default_rng(case["seed"])
    return draw_arrays(rng, case["keys"]), rng.standard_normal(case["shape"]), rng.standard_normal(case["shape"])


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE * np.abs(expected).max())


def output_and_gradient(model, x, cotangent, training):
    torch = pytest.importorskip("torch")
    x = torch.tensor(x, requires_grad=True)
    y = model.train(training)(x)
    (y * torch.as_tensor(cotangent)).sum().backward()
    return y.detach().numpy(), x.grad.numpy()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_code_computes_the_same_with_the_same_names(name):
    arrays, x, cotangent = drawn(PUBLISHED[name])
    expected = {False: ARRAYS[f"{name}.eval"], True: ARRAYS.get(f"{name}.train", ARRAYS[f"{name}.eval"])}
    for training in (False, True):
        close(ReferenceModel(NODES[name], arrays)(x, training=training), expected[training])
    model = torch_model(NODES[name], arrays)
    assert sorted(model.state_dict()) == sorted(key for key, _ in PUBLISHED[name]["keys"])
    for training in (False, True):
        output, gradient = output_and_gradient(model, x, cotangent, training)
        close(output, expected[training])
    close(gradient, ARRAYS[f"{name}.input_gradient"])


def gather_excite(layers, **options):
    """Return timm's GatherExcite; timm 1.0.31 cannot build its perceptron, so it is added afterwards."""
    module = layers.GatherExcite(12, use_mlp=False, **options)
    module.mlp = layers.ConvMlp(12, 3)
    return module


BOTH = (True, True, True)
TIMM = {
    "ese": (spec.ese(12), lambda timm: timm.EffectiveSEModule(12)),
    "eca": (spec.eca(12), lambda timm: timm.EcaModule(12)),
    "eca_wide": (spec.eca(512), lambda timm: timm.EcaModule(512)),
    "gc": (spec.gc(12, rd_channels=3), lambda timm: timm.GlobalContext(12, rd_channels=3)),
    "gc_both": (spec.gc(12, rd_channels=3, fuse_add=True), lambda timm: timm.GlobalContext(12, *BOTH, rd_channels=3)),
    "ge": (spec.ge(12, rd_channels=3), lambda timm: gather_excite(timm)),
    "ge_2": (spec.ge(12, rd_channels=3, extent=2), lambda timm: gather_excite(timm, extent=2)),
    "ge_4": (spec.ge(12, extent=4, use_mlp=False), lambda timm: timm.GatherExcite(12, extent=4, use_mlp=False)),
    "sk": (spec.sk(12), lambda timm: timm.SelectiveKernel(12, rd_channels=32, split_input=False)),
    "sk_split": (
        spec.sk(12, rd_channels=5, kernel_sizes=(3, 7), keep_3x3=False, split_input=True, groups=2),
        lambda timm: timm.SelectiveKernel(12, None, [3, 7], rd_channels=5, keep_3x3=False, groups=2),
    ),
    "coord": (spec.coord(12, rd_channels=5, bias=False), lambda timm: timm.coord_attn.CoordAttn(12, rd_channels=5)),
    "mhsa": (spec.mhsa(12, num_heads=3), lambda timm: timm.attention2d.Attention2d(12, num_heads=3)),
}


@pytest.mark.parametrize("name", TIMM)
@pytest.mark.parametrize("size", [(7, 5), (1, 1)])
def test_timm_computes_the_same_with_the_same_names(name, size):
    torch, layers = pytest.importorskip("torch"), pytest.importorskip("timm.layers")
    for module in ("coord_attn", "attention2d"):
        importlib.import_module(f"timm.layers.{module}")
    node, make = TIMM[name]
    torch.manual_seed(0)
    theirs = make(layers).double()
    for array in theirs.state_dict().values():
        if array.is_floating_point():
            array.uniform_(0.2, 0.8)
    arrays = {name: t.numpy() for name, t in theirs.state_dict().items() if not name.endswith("num_batches_tracked")}
    ours = torch_model(node, arrays)
    rng = np.random.default_rng(0)
    x, cotangent = (rng.standard_normal((3, node.in_channels_expected, *size)) for _ in range(2))
    for training in (False, True):
        found, expected = (output_and_gradient(model, x, cotangent, training) for model in (ours, theirs))
        close(found[0], expected[0])
        close(found[1], expected[1])


def scse_by_hand(torch, layer, x):
    channel = layer.cSE.fc2(torch.relu(layer.cSE.fc1(x.mean((2, 3))))).sigmoid()[:, :, None, None]
    return torch.maximum(x * channel, x * layer.sSE.conv(x).sigmoid())


def agent_by_hand(torch, layer, x):
    """Agent attention in the order of operations of the authors' code, without position biases."""
    n, c, h, w = x.shape
    heads, size = 4, c // 4
    q, k, v = layer.qkv(x.flatten(2).transpose(1, 2)).reshape(n, h * w, 3, c).unbind(2)
    regions = torch.nn.functional.adaptive_avg_pool2d(q.transpose(1, 2).reshape(n, c, h, w), 3)
    agents = regions.flatten(2).transpose(1, 2)
    q, k, v, agents = (t.reshape(n, -1, heads, size).transpose(1, 2) for t in (q, k, v, agents))
    read = torch.softmax(agents * size**-0.5 @ k.transpose(-1, -2), -1) @ v
    y = (torch.softmax(q * size**-0.5 @ agents.transpose(-1, -2), -1) @ read).transpose(1, 2).reshape(n, h * w, c)
    y = y + layer.dwc(v.transpose(1, 2).reshape(n, h, w, c).permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)
    return layer.proj(y).transpose(1, 2).reshape(n, c, h, w)


def ge_by_hand(torch, layer, x):
    y = layer.gather.norm2(layer.gather.conv2(torch.relu(layer.gather.norm1(layer.gather.conv1(x)))))
    y = layer.mlp.fc2(torch.relu(layer.mlp.fc1(y)))
    return x * torch.nn.functional.interpolate(y, size=x.shape[2:]).sigmoid()


BY_HAND = {
    "scse": (spec.scse(8), scse_by_hand),
    "agent": (spec.agent(8, 4, agent_num=9, qkv_bias=True), agent_by_hand),
    "ge with convolutions": (spec.ge(8, extent=4, extra_params=True), ge_by_hand),
}


@pytest.mark.parametrize("name", BY_HAND)
@pytest.mark.parametrize("size", [(5, 7), (2, 1)])
def test_equations(name, size):
    torch, generator = pytest.importorskip("torch"), np.random.default_rng(0)
    node, by_hand = BY_HAND[name]
    model = torch_model(node, {p.name: generator.uniform(0.1, 0.9, p.shape) for p in node.parameters()})
    x = torch.as_tensor(generator.standard_normal((2, 8, *size)))
    close(model.eval()(x).detach().numpy(), by_hand(torch, model, x).detach().numpy())


FUSIBLE = [node for node in (*NODES.values(), *(node for node, _ in TIMM.values())) if is_fusible(node)]


@pytest.mark.parametrize("node", FUSIBLE)
def test_fusion(node):
    """The batch norms are fused into convolutions and linear layers, also inside graphs."""
    generator = np.random.default_rng(0)
    arrays = {p.name: generator.uniform(0.1, 0.9, p.shape) for p in node.parameters()}
    fused, weights = fuse(node, arrays)
    kinds = [inner.kind for _, inner in fused.walk()]
    assert "batch_norm2d" not in kinds
    assert fused.num_parameters < node.num_parameters
    x = generator.standard_normal((2, node.in_channels_expected, 7, 5))
    close(ReferenceModel(fused, weights)(x), ReferenceModel(node, arrays)(x))


def test_widths():
    """Adaptive defaults are those of the authors at the widths that they use; those of MAF are not rounded."""
    assert [spec.maf(c).at("mlp.1").out_features for c in (8, 40)] == [1, 2]
    assert spec.maf(8, rd_channels=5).at("mlp.1").out_features == 5
    assert [spec.eca(c).at("conv").kernel_size for c in (4, 64, 128, 256, 512)] == [3, 3, 5, 5, 5]
    assert [spec.sge(c).arrays["weight"][0][0] for c in (12, 64, 2048)] == [4, 64, 64]
    assert [spec.ema(c).at("gn").num_channels for c in (3, 12, 64)] == [3, 3, 8]
    assert [spec.coord(c).at("conv1").out_channels for c in (16, 512)] == [8, 16]
    assert [spec.sk(c).at("attn.fc_reduce").out_channels for c in (64, 1024)] == [32, 64]


REFUSED = [
    ("SGE", (12,), {"groups": 5}, "sge: groups: 5 groups do not divide 12 channels"),
    ("EMA", (12,), {"groups": 8}, "ema: groups: 8 groups do not divide 12 channels"),
    ("ShuffleAttention", (9,), {}, "shuffle: channels: expected an even number, because every group is halved, got 9"),
    ("ShuffleAttention", (12,), {"groups": 4}, "shuffle: groups: 4 groups do not divide 6 pairs of channels"),
    ("SK", (12,), {"groups": 5}, "sk: groups: 5 groups do not divide 12 channels"),
    ("SK", (13,), {"split_input": True}, "sk: split_input: 2 branches do not divide 13 channels"),
    ("SoftmaxAttention", (12,), {"num_heads": 5}, "mhsa: num_heads: 5 heads do not divide 12 channels"),
    ("AgentAttention", (12,), {"agent_num": 50}, "agent: agent_num: expected a square such as 49, got 50"),
    ("GE", (12,), {"extra_params": True}, "ge: extra_params: the whole map cannot be gathered by convolutions; expect"),
    ("GE", (12,), {"extent": 3}, "ge: extent: input should be 0, 2, 4 or 8, got 3"),
    ("GC", (12,), {"fuse_scale": False}, "gc: fuse_add, fuse_scale: expected at least one of them to be True"),
    ("ECA", (12,), {"kernel_size": 4}, "eca: kernel_size: expected an odd kernel size, got 4"),
    ("MRAP", (12,), {"pool_types": "avg"}, "mrap: pool_types: expected two or three statistics, got avg"),
    ("MRAP", (12,), {"rates": (0.5,)}, "mrap: rates: expected one for each of 2 statistics, got 1"),
    ("MRAP", (12,), {"rates": (0.9, 0.9)}, "mrap: rates: expected a sum of 1, got 1.8"),
    ("MRAP", (12,), {"rates": (0.3, 0.3)}, "mrap: rates: expected a sum of 1, got 0.6"),
    ("BAM", (12,), {"rd_channels": 0}, "bam: rd_channels: input should be greater than or equal to 1, got 0"),
    ("CoordAttention", (12,), {"reduction": 4}, "coord: got an unexpected keyword argument 'reduction'; in place of r"),
]


@pytest.mark.parametrize(("name", "args", "options", "message"), REFUSED)
@pytest.mark.parametrize("framework", ["torch", "mindspore"])
def test_refused_arguments(framework, name, args, options, message):
    layers = pytest.importorskip(f"maam.{framework}", exc_type=MissingFrameworkError)
    with pytest.raises(SpecError, match=f"^{escape(message)}"):
        getattr(layers, name)(*args, **options)
