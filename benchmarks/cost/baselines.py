"""Baselines in PyTorch that have no spec: layers of timm and two kinds of attention."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from maam.errors import require

HEADS = 4
AGENTS_ACROSS = 7
"""Agent attention pools the queries to 7x7 agent tokens, as in its authors' code."""


class SoftmaxAttention(nn.Module):
    """Multi-head attention over the positions of a map, with a residual connection.

    It maps (N, C, H, W) to the same shape, with four heads, or one if C is not a multiple of four.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.heads = HEADS if channels % HEADS == 0 else 1
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + attention(x); the cost is quadratic in H * W."""
        y = F.scaled_dot_product_attention(*self._project(x))  # (N, heads, H * W, C / heads)
        return x + self._join_heads(y, x)

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        n, channels, height, width = x.shape
        tokens = x.flatten(2).transpose(1, 2)  # (N, C, H, W) -> (N, H * W, C)
        qkv = self.qkv(tokens).reshape(n, height * width, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, H * W, C / heads)
        return q, k, v

    def _join_heads(self, y: Tensor, x: Tensor) -> Tensor:
        tokens = y.transpose(1, 2).flatten(2)  # (N, H * W, C)
        return self.proj(tokens).transpose(1, 2).reshape(x.shape)  # (N, C, H, W)


class AgentAttention(SoftmaxAttention):
    """Agent attention (arXiv 2312.08874) without position biases, with a residual connection.

    The agent tokens A are the pooled queries. The output is softmax(Q A^T) softmax(A K^T) V plus a depthwise
    convolution of V.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.dwc = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return x + attention(x); the cost is linear in H * W."""
        q, k, v = self._project(x)
        n, heads, _, each = q.shape
        across = min(AGENTS_ACROSS, x.shape[2])
        maps = q.transpose(2, 3).reshape(n * heads, each, *x.shape[2:])
        agents = F.adaptive_avg_pool2d(maps, across).reshape(n, heads, each, -1).transpose(2, 3)
        gathered = F.scaled_dot_product_attention(agents, k, v)  # (N, heads, agents, C / heads)
        y = F.scaled_dot_product_attention(q, agents, gathered)  # (N, heads, H * W, C / heads)
        local = self.dwc(v.transpose(2, 3).reshape(x.shape))
        return x + self._join_heads(y, x) + local


def _timm_layer(name: str) -> Callable[[int], nn.Module]:
    def make(channels: int) -> nn.Module:
        require("timm", "timm")
        module: nn.Module = import_module("timm.layers").create_attn(name, channels)
        return module

    return make


LAYERS: dict[str, Callable[[int], nn.Module]] = {
    "ECA (timm)": _timm_layer("eca"),
    "SE (timm)": _timm_layer("se"),
    "CBAM (timm)": _timm_layer("cbam"),
    "SK (timm)": _timm_layer("sk"),
    "softmax attention": SoftmaxAttention,
    "agent attention": AgentAttention,
}


def make_baseline(name: str, channels: int) -> nn.Module:
    """Return the baseline `name` for maps of `channels` channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LAYERS[name](channels)
