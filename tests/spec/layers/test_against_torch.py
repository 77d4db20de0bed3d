"""Shapes, parameters and MACs of composites against networks written in PyTorch by hand, and against maam's own."""

import pytest

from maam.spec import Activation, Conv2d, Identity, Parallel, Residual, Resize, Scale, list_presets, maam, preset

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402

from maam.torch import build  # noqa: E402


def conv_norm_act(c, out, kernel_size):
    conv = nn.Conv2d(c, out, kernel_size, padding=kernel_size // 2, bias=False)
    return [conv, nn.BatchNorm2d(out), nn.ReLU()]


def branch(c, hidden, out, kernel_size=3, pools=(1, 1)):
    first, second = conv_norm_act(c, hidden, kernel_size), conv_norm_act(hidden, out, kernel_size)
    return nn.Sequential(*first, nn.MaxPool2d(pools[0]), *second, nn.MaxPool2d(pools[1]))


class HandMade(nn.Module):
    """MAAM after the paper: branches, softmax of alpha, reduce layer."""

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


def run(module, shape):
    """The output's shape for one sample and the MACs that PyTorch counts, on the meta device: nothing is computed."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = module.eval().to("meta")(torch.zeros(1, *shape, device="meta"))
    return tuple(output.shape[1:]), counter.get_total_flops() // 2


def compare(spec, module, shape):
    assert (spec.output_shape(shape), spec.macs(shape)) == run(module, shape)
    assert spec.num_parameters == sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("pools", [(1, 2), (2, 2)])
def test_the_classifier_of_the_paper(pools):
    branches = [branch(3, 64, 128, pools=pools) for _ in range(3)]
    side = 32 // pools[0] // pools[1]
    head = classifier(128 * side**2, 256, 10)
    network = nn.Sequential(HandMade(*branches, channels=128), *head)
    compare(preset("maam_cifar10", pool=pools), network, (3, 32, 32))


@pytest.mark.parametrize(
    ("c", "out", "hidden", "kernels", "pools"), [(4, 6, 3, (1, 3, 5), (1, 1)), (2, 2, 7, (3, 7), (2, 3))]
)
def test_the_layer(c, out, hidden, kernels, pools):
    spec = maam(c, out, hidden_channels=hidden, num_agents=len(kernels), kernel_sizes=kernels, pool=pools)
    module = HandMade(*(branch(c, hidden, out, k, pools) for k in kernels), channels=out)
    compare(spec, module, (c, 12, 9))


@pytest.mark.parametrize("name", list_presets())
def test_presets(name):
    model = preset(name, image_size=32)
    compare(model, build(model), model.input_shape)


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
    compare(spec, build(spec), (4, 12, 14))


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
    compare(spec, build(spec), shape)
