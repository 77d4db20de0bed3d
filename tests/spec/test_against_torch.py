"""Shapes, parameters and MACs: primitives against PyTorch's modules, layers against networks written by hand."""

from itertools import product

import pytest

from maam import spec
from maam.errors import ShapeError

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from maam.torch import build  # noqa: E402
from tests.spec.nodes import FLATTEN, IDENTITY, POOL, chain, conv, linear, norm, residual  # noqa: E402

CONVS = [{}, {"kernel_size": 1}, {"kernel_size": 5, "padding": 2}, {"kernel_size": 4, "stride": 3}, {"padding": 7}]
CONVS += [{"stride": 2, "padding": 1}, {"stride": 5}, {"dilation": 2, "padding": 1}, {"groups": 2}]
CONVS += [{"dilation": 3, "stride": 2, "padding": 2}, {"groups": 4, "out_channels": 8, "stride": 2}]
CONVS += [{"groups": 4, "out_channels": 4, "bias": False}, {"bias": False, "out_channels": 1}]
CONVS = [{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options} for options in CONVS]
MAX_POOLS = [(2, None, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (2, None, 1), (5, 4, 2), (1, 2, 0)]
AVG_POOLS = [(2, None, 0), (3, 2, 0), (3, 1, 1), (2, 3, 1), (1, 2, 0), (5, 3, 2)]
POOLS = [(spec.MaxPool2d, nn.MaxPool2d, MAX_POOLS), (spec.AvgPool2d, nn.AvgPool2d, AVG_POOLS)]
ACTIVATIONS = {"relu": nn.ReLU(), "relu6": nn.ReLU6(), "leaky_relu": nn.LeakyReLU(), "elu": nn.ELU(), "gelu": nn.GELU()}
ACTIVATIONS |= {"silu": nn.SiLU(), "hard_swish": nn.Hardswish(), "sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}
ACTIVATIONS |= {"hard_sigmoid": nn.Hardsigmoid(), "softmax": nn.Softmax(1), "identity": nn.Identity()}
SHAPELESS = [
    *((spec.Activation(function=function), module) for function, module in ACTIVATIONS.items()),
    (FLATTEN, nn.Flatten()),
    (spec.Dropout(p=0.5), nn.Dropout(0.5)),
    (IDENTITY, nn.Identity()),
]
"""Layers that take maps and vectors."""
PAIRS = [
    *((spec.Conv2d(**options), nn.Conv2d(**options)) for options in CONVS),
    *((ours(kernel_size=k, stride=s, padding=p), theirs(k, s, p)) for ours, theirs, rows in POOLS for k, s, p in rows),
    *((spec.GroupNorm(num_groups=g, num_channels=4), nn.GroupNorm(g, 4)) for g in (1, 2, 4)),
    (spec.AdaptiveAvgPool2d(output_size=3), nn.AdaptiveAvgPool2d(3)),
    (norm(4), nn.BatchNorm2d(4)),
    (POOL, nn.AdaptiveAvgPool2d(1)),
    (spec.GlobalPool(function="max"), nn.AdaptiveMaxPool2d(1)),
    *SHAPELESS,
]


class LastState(nn.Module):
    """The RNN over rows, written without maam."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)

    def forward(self, x):
        rows = torch.stack([x[:, :, row].flatten(1) for row in range(x.shape[2])], 1)
        return self.rnn(rows)[0][:, -1]


def run(module, shape, device="cpu"):
    """Return the shape of the output for one sample, and the MACs that PyTorch counts; "meta" computes no values."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = module.eval().to(device)(torch.zeros(1, *shape, device=device))
    return tuple(output.shape[1:]), counter.get_total_flops() // 2


def compare(node, module, shape, device="cpu"):
    assert (node.output_shape(shape), node.macs(shape)) == run(module, shape, device)
    assert node.num_parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("node", "module"), PAIRS, ids=[str(module) for _, module in PAIRS])
def test_maps_parameters_and_maps_that_pytorch_refuses(node, module):
    compare(node, module, (4, 9, 9))
    compare(node, module, (4, 12, 7))
    state = {name: tuple(t.shape) for name, t in module.state_dict().items() if name != "num_batches_tracked"}
    assert {parameter.name: parameter.shape for parameter in node.parameters()} == state
    trainable = [name for name, _ in module.named_parameters()]
    assert [parameter.name for parameter in node.parameters() if parameter.trainable] == trainable
    for shape in [(4, side, side + 1) for side in range(1, 6)]:
        try:
            run(module, shape)
        except RuntimeError:
            with pytest.raises(ShapeError):
                node.output_shape(shape)
        else:
            compare(node, module, shape)


def test_vectors_and_rows():
    for (features, out), bias in product([(5, 7), (1, 1), (64, 3)], [True, False]):
        for shape in ((features,), (4, features)):
            compare(linear(features, out, bias=bias), nn.Linear(features, out, bias), shape)
        conv1d = spec.Conv1d(in_channels=features, out_channels=out, kernel_size=3, padding=1, bias=bias)
        compare(conv1d, nn.Conv1d(features, out, 3, padding=1, bias=bias), (features, 9))
    for node, module in SHAPELESS:
        compare(node, module, (6,))
    for shape, hidden in [((3, 5, 4), 6), ((1, 1, 1), 1), ((2, 8, 3), 10)]:
        size = shape[0] * shape[2]
        compare(spec.RNN(input_size=size, hidden_size=hidden), LastState(size, hidden), shape)


def test_padding_of_max_pooling_is_refused_where_pytorch_refuses_it():
    for kernel_size, padding in product(range(1, 6), range(4)):
        module, fields = nn.MaxPool2d(kernel_size, padding=padding), {"kernel_size": kernel_size, "padding": padding}
        try:
            run(module, (1, 9, 9))
        except RuntimeError:
            with pytest.raises(ValueError, match=f"padding: {padding} must be at most half of kernel_size"):
                spec.MaxPool2d(**fields)
        else:
            compare(spec.MaxPool2d(**fields), module, (1, 9, 9))


def conv_norm_act(c, out, kernel_size):
    return nn.Conv2d(c, out, kernel_size, padding=kernel_size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU()


def branch(c, hidden, out, kernel_size=3, pools=(1, 1)):
    first, second = conv_norm_act(c, hidden, kernel_size), conv_norm_act(hidden, out, kernel_size)
    return nn.Sequential(*first, nn.MaxPool2d(pools[0]), *second, nn.MaxPool2d(pools[1]))


class HandMade(nn.Module):
    """MAAM as in the paper: branches, softmax of alpha, reduce layer."""

    def __init__(self, *branches, channels):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.alpha = nn.Parameter(torch.zeros(len(branches)))
        self.reduce = nn.Sequential(*conv_norm_act(channels, channels, 1))

    def forward(self, x):
        outputs = torch.stack([branch(x) for branch in self.branches])
        return self.reduce((torch.softmax(self.alpha, 0)[:, None, None, None, None] * outputs).sum(0))


def test_the_classifier_of_the_paper_and_the_layer():
    for pools, side in (((1, 2), 16), ((2, 2), 8)):
        layer = HandMade(*(branch(3, 64, 128, pools=pools) for _ in range(3)), channels=128)
        head = [nn.Flatten(), nn.Linear(128 * side**2, 256), nn.ReLU(), nn.Linear(256, 10)]
        compare(spec.preset("maam_cifar10", pool=pools), nn.Sequential(layer, *head), (3, 32, 32), "meta")
    for c, out, hidden, kernels, pools in [(4, 6, 3, (1, 3, 5), (1, 1)), (2, 2, 7, (3, 7), (2, 3))]:
        node = spec.maam(c, out, hidden_channels=hidden, num_agents=len(kernels), kernel_sizes=kernels, pool=pools)
        module = HandMade(*(branch(c, hidden, out, k, pools) for k in kernels), channels=out)
        compare(node, module, (c, 12, 9), "meta")


CONV, ONE, FC = conv(groups=2), conv(4, 1), linear(6)
CHILDREN = {"conv": CONV, "act": spec.Activation(function="silu")}
HALF = {"a": CONV.replace(stride=2), "b": conv(kernel_size=5, stride=2, groups=2)}
PRESETS = [spec.preset(name, image_size=32) for name in spec.list_presets()]
LAYERS = [{"fusion": "mean"}, {"fusion": "dynamic", "num_agents": 2}, {"depthwise": True, "kernel_sizes": 5}]
LAYERS += [{"scales": (1, 2, 4)}, {"scales": 3, "pool": (2, 1)}, {"norm_layer": "identity", "act_layer": "gelu"}]
LAYERS += [{"reduce": False, "out_channels": 9, "hidden_channels": 1}]
CONTAINERS = [
    *(residual(**children) for children in (CHILDREN, {})),
    *(spec.Scale(children=children) for children in (CHILDREN, {"conv": ONE}, {"pool": POOL, "conv": ONE})),
    spec.Resize(children=CHILDREN, stride=2),
    spec.Resize(children={"conv": CONV.replace(stride=3)}),
    spec.Resize(children={}, stride=5),
    *(spec.Parallel(children=HALF, merge=merge) for merge in ("sum", "concat", "softmax")),
    spec.Parallel(children=HALF, merge="weighted", weights=(0.5, -2)),
    spec.Parallel(children={"a": IDENTITY, "b": CONV}, merge="concat"),
]
BUILT = [
    *((node, node.input_shape) for node in PRESETS),
    *((spec.maam(4, **options), (4, 12, 14)) for options in LAYERS),
    *product(CONTAINERS, [(4, 12, 7), (4, 5, 5)]),
    (spec.Parallel(children={"a": FC, "b": FC.replace(out_features=5)}, merge="concat"), (6,)),
    (chain(), (6,)),
]


@pytest.mark.parametrize(("node", "shape"), BUILT)
def test_built_models_layers_and_containers(node, shape):
    compare(node, build(node), shape, "meta")
