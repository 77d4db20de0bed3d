"""The MAAM classifier as a MindSpore user would write it by hand: the yardstick of the backend, without maam."""

from collections import OrderedDict

from mindspore import Parameter, nn, ops


def conv(in_channels, out, size):
    return nn.Conv2d(in_channels, out, size, pad_mode="pad", padding=size // 2, has_bias=False)


class Agent(nn.Cell):
    def __init__(self, in_channels, hidden, out, pool1):
        super().__init__()
        self.conv1 = conv(in_channels, hidden, 3)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.pool1 = nn.MaxPool2d(2, 2) if pool1 else nn.Identity()
        self.conv2 = conv(hidden, out, 3)
        self.bn2 = nn.BatchNorm2d(out)
        self.pool2 = nn.MaxPool2d(2, 2)
        self.relu = nn.ReLU()

    def construct(self, x):
        x = self.pool1(self.relu(self.bn1(self.conv1(x))))
        return self.pool2(self.relu(self.bn2(self.conv2(x))))


class Agents(nn.SequentialCell):
    def __init__(self, agents):
        super().__init__(agents)
        self.alpha = Parameter(ops.zeros(len(agents)), name="alpha")

    def construct(self, x):
        weights = ops.softmax(self.alpha, 0)
        return weights[0] * self[0](x) + weights[1] * self[1](x) + weights[2] * self[2](x)


def classifier(in_channels=3, hidden=64, out=128, side=8, width=256, pool1=True):
    agents = Agents([Agent(in_channels, hidden, out, pool1) for _ in range(3)])
    reduce = nn.SequentialCell(OrderedDict(conv=conv(out, out, 1), bn=nn.BatchNorm2d(out), act=nn.ReLU()))
    fc1, fc2 = nn.Dense(out * side * side, width), nn.Dense(width, 10)
    head = nn.SequentialCell(OrderedDict(flatten=nn.Flatten(), fc1=fc1, act=nn.ReLU(), fc2=fc2))
    return nn.SequentialCell(OrderedDict(agents=agents, reduce=reduce, classifier=head))
