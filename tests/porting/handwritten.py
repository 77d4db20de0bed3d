"""Networks written by hand in each framework: a small one, with faults in MindSpore's, and ones made of named parts."""

import mindspore
import torch
from mindspore import nn, ops


class TorchNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(8)
        self.relu = torch.nn.ReLU(inplace=True)
        self.conv2 = torch.nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.bn2 = torch.nn.BatchNorm2d(8)
        self.conv3 = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.fc = torch.nn.Linear(8, 5)
        self.drop = torch.nn.Dropout(0.5)

    def forward(self, x):
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.conv3(x) + x
        return self.fc(self.drop(x.mean((2, 3))))


class MindSporeNet(nn.Cell):
    """The same network with other names for conv1 and bn1, and the dropout registered elsewhere."""

    def __init__(self, *, stride=2, pad_mode="pad", eps=1e-5, momentum=0.9, residual=1.0, bias=True):
        super().__init__()
        padding = 1 if pad_mode == "pad" else 0
        self.stem = nn.Conv2d(3, 8, 3, pad_mode="pad", padding=1)
        self.norm = nn.BatchNorm2d(8)
        settings = {"stride": stride, "pad_mode": pad_mode, "padding": padding, "has_bias": bias}
        self.conv2 = nn.Conv2d(8, 8, 3, **settings)
        self.bn2 = nn.BatchNorm2d(8, eps=eps, momentum=momentum)
        self.conv3 = nn.Conv2d(8, 8, 3, pad_mode="pad", padding=1, has_bias=True)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(p=0.5)
        self.fc = nn.Dense(8, 5)
        self.residual = residual

    def construct(self, x):
        x = self.relu(self.norm(self.stem(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.conv3(x) + self.residual * x
        return self.fc(self.drop(ops.mean(x, (2, 3))))


def pair(**faults):
    torch.manual_seed(0)
    mindspore.set_seed(1)
    return TorchNet(), MindSporeNet(**faults)


class Parts:
    """A network of named parts, and a function of the network and its inputs."""

    def __init__(self, run, **parts):
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.run(self, *inputs)

    construct = forward


class Module(Parts, torch.nn.Module):
    """A module of parts."""


class Cell(Parts, nn.Cell):
    """A cell of parts."""


def linear(inputs, outputs, bias=True):
    """Return the same layer in both frameworks, as the next functions do."""
    return torch.nn.Linear(inputs, outputs, bias=bias), nn.Dense(inputs, outputs, has_bias=bias)


def conv(inputs, outputs, size=1, bias=True):
    return (
        torch.nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias),
        nn.Conv2d(inputs, outputs, size, has_bias=bias),
    )


def norm(channels, **options):
    return torch.nn.BatchNorm2d(channels, **options), nn.BatchNorm2d(channels, **options)


def chain(*pairs):
    modules, cells = zip(*pairs, strict=True)
    return torch.nn.Sequential(*modules), nn.SequentialCell(*cells)


def both(run, **pairs):
    """Return networks of these parts that run the same function."""
    return (kind(run, **{n: pair[side] for n, pair in pairs.items()}) for side, kind in enumerate((Module, Cell)))
