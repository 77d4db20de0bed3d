"""A small network written by hand in each framework, with options that plant faults in MindSpore's."""

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


class Cell(nn.Cell):
    """The same network with other names for conv1 and bn1, and the dropout registered elsewhere."""

    def __init__(self, *, stride=2, pad_mode="pad", eps=1e-5, momentum=0.9, residual=1.0, **options):
        super().__init__()
        padding = 1 if pad_mode == "pad" else 0
        self.stem = nn.Conv2d(3, 8, 3, pad_mode="pad", padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(
            8, 8, 3, stride=stride, pad_mode=pad_mode, padding=padding, has_bias=options.get("bias", True)
        )
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
    return TorchNet(), Cell(**faults)
