"""Shapes, parameters and MACs: of primitives against PyTorch's modules, of layers against networks written by hand."""

import pytest

from maam.errors import ShapeError
from maam.spec import (
    RNN,
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Parallel,
    Residual,
    Resize,
    Scale,
    list_presets,
    maam,
    preset,
)

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from maam.torch import build  # noqa: E402

CONVS = [
    {},
    {"kernel_size": 1},
    {"kernel_size": 5, "padding": 2},
    {"kernel_size": 4, "stride": 3},
    {"stride": 2, "padding": 1},
    {"stride": 5},
    {"padding": 7},
    {"dilation": 2, "padding": 1},
    {"dilation": 3, "stride": 2, "padding": 2},
    {"groups": 2},
    {"groups": 4, "out_channels": 8, "stride": 2},
    {"groups": 4, "out_channels": 4, "bias": False},
    {"bias": False, "out_channels": 1},
]
MAX_POOLS = [(2, None, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0), (2, None, 1), (5, 4, 2), (1, 2, 0)]
AVG_POOLS = [(2, None), (3, 2), (3, 1), (2, 3), (1, 2)]
ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "leaky_relu": nn.LeakyReLU(),
    "elu": nn.ELU(),
    "gelu": nn.GELU(),
    "silu": nn.SiLU(),
    "hard_swish": nn.Hardswish(),
    "sigmoid": nn.Sigmoid(),
    "hard_sigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
    "softmax": nn.Softmax(1),
    "identity": nn.Identity(),
}


class LastState(nn.Module):
    """The RNN over rows, written without maam."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)

    def forward(self, x):
        rows = torch.stack([x[:, :, row].flatten(1) for row in range(x.shape[2])], 1)
        return self.rnn(rows)[0][:, -1]


def pairs():
    for options in CONVS:
        options = {"in_channels": 4, "out_channels": 6, "kernel_size": 3, **options}
        yield Conv2d(**options), nn.Conv2d(**options)
    for kernel_size, stride, padding in MAX_POOLS:
        spec = MaxPool2d(kernel_size=kernel_size, stride=stride, padding=padding)
        yield spec, nn.MaxPool2d(kernel_size, stride, padding)
    for kernel_size, stride in AVG_POOLS:
        yield AvgPool2d(kernel_size=kernel_size, stride=stride), nn.AvgPool2d(kernel_size, stride)
    for function, module in ACTIVATIONS.items():
        yield Activation(function=function), module
    yield BatchNorm2d(num_features=4), nn.BatchNorm2d(4)
    yield GlobalPool(), nn.AdaptiveAvgPool2d(1)
    yield GlobalPool(function="max"), nn.AdaptiveMaxPool2d(1)
    yield Flatten(), nn.Flatten()
    yield Dropout(p=0.5), nn.Dropout(0.5)
    yield Identity(), nn.Identity()


PAIRS = list(pairs())
IDS = [str(module) for _, module in PAIRS]


def run(module, shape, device="cpu"):
    """Return the shape of the output for one sample, and the MACs that PyTorch counts; "meta" computes no values."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = module.eval().to(device)(torch.zeros(1, *shape, device=device))
    return tuple(output.shape[1:]), counter.get_total_flops() // 2


def compare(spec, module, shape, device="cpu"):
    assert (spec.output_shape(shape), spec.macs(shape)) == run(module, shape, device)
    assert spec.num_parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("spec", "module"), PAIRS, ids=IDS)
@pytest.mark.parametrize("shape", [(4, 9, 9), (4, 12, 7)])
def test_maps(spec, module, shape):
    compare(spec, module, shape)


@pytest.mark.parametrize(("spec", "module"), PAIRS, ids=IDS)
@pytest.mark.parametrize("side", range(1, 6))
def test_maps_that_are_too_small_are_those_that_pytorch_refuses(spec, module, side):
    try:
        expected = run(module, (4, side, side + 1))
    except RuntimeError:
        with pytest.raises(ShapeError):
            spec.output_shape((4, side, side + 1))
    else:
        assert expected == (spec.output_shape((4, side, side + 1)), spec.macs((4, side, side + 1)))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("features", "out"), [(5, 7), (1, 1), (64, 3)])
def test_linear(features, out, bias):
    compare(Linear(in_features=features, out_features=out, bias=bias), nn.Linear(features, out, bias), (features,))


@pytest.mark.parametrize(("shape", "hidden"), [((3, 5, 4), 6), ((1, 1, 1), 1), ((2, 8, 3), 10)])
def test_rnn(shape, hidden):
    size = shape[0] * shape[2]
    compare(RNN(input_size=size, hidden_size=hidden), LastState(size, hidden), shape)


@pytest.mark.parametrize("function", ACTIVATIONS)
def test_activations_of_vectors(function):
    compare(Activation(function=function), ACTIVATIONS[function], (6,))


@pytest.mark.parametrize(("spec", "module"), PAIRS, ids=IDS)
def test_names_and_shapes_of_parameters_are_those_of_pytorch(spec, module):
    state = {name: tuple(t.shape) for name, t in module.state_dict().items() if name != "num_batches_tracked"}
    assert {parameter.name: parameter.shape for parameter in spec.parameters()} == state
    trainable = [name for name, _ in module.named_parameters()]
    assert [parameter.name for parameter in spec.parameters() if parameter.trainable] == trainable


def test_padding_of_max_pooling_is_refused_where_pytorch_refuses_it():
    for kernel_size in range(1, 6):
        for padding in range(4):
            module = nn.MaxPool2d(kernel_size, padding=padding)
            try:
                run(module, (1, 9, 9))
            except RuntimeError:
                with pytest.raises(ValueError, match="must be at most half"):
                    MaxPool2d(kernel_size=kernel_size, padding=padding)
            else:
                compare(MaxPool2d(kernel_size=kernel_size, padding=padding), module, (1, 9, 9))


def conv_norm_act(c, out, kernel_size):
    conv = nn.Conv2d(c, out, kernel_size, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]


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


def classifier(features, hidden, classes):
    return [nn.Flatten(), nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, classes)]


@pytest.mark.parametrize("pools", [(1, 2), (2, 2)])
def test_the_classifier_of_the_paper(pools):
    branches = [branch(3, 64, 128, pools=pools) for _ in range(3)]
    side = 32 // pools[0] // pools[1]
    head = classifier(128 * side**2, 256, 10)
    network = nn.Sequential(HandMade(*branches, channels=128), *head)
    compare(preset("maam_cifar10", pool=pools), network, (3, 32, 32), "meta")


@pytest.mark.parametrize(
    ("c", "out", "hidden", "kernels", "pools"), [(4, 6, 3, (1, 3, 5), (1, 1)), (2, 2, 7, (3, 7), (2, 3))]
)
def test_the_layer(c, out, hidden, kernels, pools):
    spec = maam(c, out, hidden_channels=hidden, num_agents=len(kernels), kernel_sizes=kernels, pool=pools)
    module = HandMade(*(branch(c, hidden, out, k, pools) for k in kernels), channels=out)
    compare(spec, module, (c, 12, 9), "meta")


@pytest.mark.parametrize("name", list_presets())
def test_presets(name):
    model = preset(name, image_size=32)
    compare(model, build(model), model.input_shape, "meta")


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "mean"},
        {"fusion": "dynamic", "num_agents": 2},
        {"depthwise": True, "kernel_sizes": 5},
        {"scales": (1, 2, 4)},
        {"scales": 3, "pool": (2, 1)},
        {"norm_layer": "identity", "act_layer": "gelu"},
        {"reduce": False, "out_channels": 9, "hidden_channels": 1},
    ],
)
def test_options_of_the_layer(options):
    spec = maam(4, **options)
    compare(spec, build(spec), (4, 12, 14), "meta")


CONV = Conv2d(in_channels=4, out_channels=4, kernel_size=3, padding=1, groups=2)
CHILDREN = {"conv": CONV, "act": Activation(function="silu")}
HALF = {"a": CONV.replace(stride=2), "b": CONV.replace(stride=2, kernel_size=5, padding=2)}


@pytest.mark.parametrize(
    "spec",
    [
        Residual(children=CHILDREN),
        Residual(children={}),
        Scale(children=CHILDREN),
        Scale(children={"conv": CONV.replace(out_channels=1, groups=1)}),
        Resize(children=CHILDREN, stride=2),
        Resize(children={"conv": CONV.replace(stride=3)}),
        Resize(children={}, stride=5),
        Parallel(children=HALF),
        Parallel(children=HALF, merge="concat"),
        Parallel(children=HALF, merge="weighted", weights=(0.5, -2)),
        Parallel(children=HALF, merge="softmax"),
        Parallel(children={"a": Identity(), "b": CONV}, merge="concat"),
    ],
)
@pytest.mark.parametrize("shape", [(4, 12, 7), (4, 5, 5)])
def test_containers(spec, shape):
    compare(spec, build(spec), shape, "meta")
