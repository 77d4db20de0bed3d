"""What MAAM is compared with and the spec does not have: timm's layers, two kinds of attention, ShuffleNetV2."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maam.errors import require

HEADS = 4
AGENTS_ACROSS = 7
"""Agent attention pools the queries to 7x7 agent tokens, as its authors do."""


class SoftmaxAttention(nn.Module):
    """x + attention(x) over the positions of a map, four heads: (N, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = HEADS if channels % HEADS == 0 else 1
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Softmax attention, quadratic in H * W."""
        y = F.scaled_dot_product_attention(*self._qkv(x))  # (N, heads, H * W, C / heads)
        return x + self._joined(y, x)

    def _qkv(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, H * W, C)
        qkv = self.qkv(tokens).reshape(n, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, H * W, C / heads)
        return q, k, v

    def _joined(self, y: Tensor, x: Tensor) -> Tensor:
        tokens = y.transpose(1, 2).flatten(2)  # (N, H * W, C)
        return self.proj(tokens).transpose(1, 2).reshape(x.shape)  # (N, C, H, W)


class AgentAttention(SoftmaxAttention):
    """x + agent attention(x) (arXiv 2312.08874), without its position biases: linear in H * W.

    Agent tokens A are the queries, pooled: softmax(Q A^T) softmax(A K^T) V, plus a depthwise convolution of V.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.dwc = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Agents gather from all positions, then all positions gather from the agents."""
        q, k, v = self._qkv(x)
        n, heads, _, each = q.shape
        across = min(AGENTS_ACROSS, x.shape[2])
        maps = q.transpose(2, 3).reshape(n * heads, each, *x.shape[2:])
        agents = F.adaptive_avg_pool2d(maps, across).reshape(n, heads, each, -1).transpose(2, 3)
        gathered = F.scaled_dot_product_attention(agents, k, v)  # (N, heads, agents, C / heads)
        y = F.scaled_dot_product_attention(q, agents, gathered)  # (N, heads, H * W, C / heads)
        local = self.dwc(v.transpose(2, 3).reshape(x.shape))
        return x + self._joined(y, x) + local


def _timm(name: str) -> Callable[[int], nn.Module]:
    def make(channels: int) -> nn.Module:
        require("timm", "timm")
        module: nn.Module = import_module("timm.layers").create_attn(name, channels)
        return module

    return make


def _shufflenet() -> nn.Module:
    """torchvision's, with stride 1 in front and no pooling, as CIFAR's images need."""
    models = import_module("torchvision.models")
    model = models.shufflenet_v2_x1_0(num_classes=10)
    model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()
    return model


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "ECA (timm)": _timm("eca"),
    "SE (timm)": _timm("se"),
    "CBAM (timm)": _timm("cbam"),
    "SK (timm)": _timm("sk"),
    "softmax attention": SoftmaxAttention,
    "agent attention": AgentAttention,
}
MODELS: dict[str, Callable[[], nn.Module]] = {"ShuffleNetV2": _shufflenet}


def make_rival(name: str, channels: int) -> nn.Module:
    """The module of that name, for maps of `channels` channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LAYERS[name](channels) if name in LAYERS else MODELS[name]()
