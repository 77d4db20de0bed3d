"""The MAAM classifier as a PyTorch user would write it by hand: the yardstick of the backend, without maam."""

from collections import OrderedDict

import torch
from torch import nn


class Agent(nn.Module):
    def __init__(self, in_channels, hidden, out, pool1):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.pool1 = nn.MaxPool2d(2) if pool1 else nn.Identity()
        self.conv2 = nn.Conv2d(hidden, out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.pool2 = nn.MaxPool2d(2)
        self.relu = nn.ReLU()

    def forward(self, x):
        x = self.pool1(self.relu(self.bn1(self.conv1(x))))
        return self.pool2(self.relu(self.bn2(self.conv2(x))))


class Agents(nn.ModuleList):
    def __init__(self, agents):
        super().__init__(agents)
        self.alpha = nn.Parameter(torch.zeros(len(agents)))

    def forward(self, x):
        a, b, c = (agent(x) for agent in self)
        weights = torch.softmax(self.alpha, 0).unbind(0)
        return weights[0] * a + weights[1] * b + weights[2] * c


def named(**layers):
    return nn.Sequential(OrderedDict(layers))


def classifier(in_channels=3, hidden=64, out=128, side=8, width=256, pool1=True):
    agents = Agents([Agent(in_channels, hidden, out, pool1) for _ in range(3)])
    reduce = named(conv=nn.Conv2d(out, out, 1, bias=False), bn=nn.BatchNorm2d(out), act=nn.ReLU())
    fc1, fc2 = nn.Linear(out * side * side, width), nn.Linear(width, 10)
    head = named(flatten=nn.Flatten(), fc1=fc1, act=nn.ReLU(), fc2=fc2)
    return named(agents=agents, reduce=reduce, classifier=head)
