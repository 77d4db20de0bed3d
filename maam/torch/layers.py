"""The layer classes: each is a composite of `maam.spec` as a `torch.nn.Module`.

`layers.pyi` beside this file shows their signatures to editors and type checkers. `tools/stubs.py` writes it.
"""

from __future__ import annotations

from maam import spec
from maam.torch.modules import Layer

__all__ = [
    "BAM",
    "CBAM",
    "ECA",
    "EMA",
    "ESE",
    "GC",
    "GCT",
    "GE",
    "LKA",
    "MAAM",
    "MAF",
    "MAFB",
    "MAFC",
    "MRAP",
    "SE",
    "SGE",
    "SK",
    "AgentAttention",
    "CoordAttention",
    "Layer",
    "ScSE",
    "ShuffleAttention",
    "SimAM",
    "SoftmaxAttention",
    "TripletAttention",
    "VANAttention",
]


class MAAM(Layer, composite=spec.maam):
    """MAAM in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import MAAM
        >>> layer = MAAM(16, 32, num_agents=3, pool=2)
        >>> layer(torch.rand(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
        >>> layer.agents.alpha  # one learnable weight for each branch
        Parameter containing:
        tensor([0., 0., 0.], requires_grad=True)
    """


class MAF(Layer, composite=spec.maf):
    """MAF in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import MAF
        >>> layer = MAF(64, rd_ratio=1 / 8)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class MAFC(Layer, composite=spec.mafc):
    """MAF_C in PyTorch.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from maam.torch import MAFC
        >>> block = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), MAFC(64), nn.ReLU())
        >>> block(torch.rand(2, 3, 10, 10)).shape
        torch.Size([2, 64, 8, 8])
    """


class MAFB(Layer, composite=spec.mafb):
    """MAF_B in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import MAFB
        >>> layer = MAFB(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class SE(Layer, composite=spec.se):
    """Squeeze and excitation in PyTorch.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from maam.torch import SE
        >>> layer = SE(64, act_layer=nn.SiLU)  # a class or the name "silu"
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class CBAM(Layer, composite=spec.cbam):
    """CBAM in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import CBAM
        >>> layer = CBAM(64, spatial=False)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class ESE(Layer, composite=spec.ese):
    """Effective SE in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import ESE
        >>> layer = ESE(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class ECA(Layer, composite=spec.eca):
    """ECA in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import ECA
        >>> layer = ECA(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class GC(Layer, composite=spec.gc):
    """Global context in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import GC
        >>> layer = GC(64, fuse_add=True)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class GE(Layer, composite=spec.ge):
    """Gather and excite in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import GE
        >>> layer = GE(64, extent=4)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class GCT(Layer, composite=spec.gct):
    """Gated channel transformation in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import GCT
        >>> layer = GCT(64, mode="l1")
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class SK(Layer, composite=spec.sk):
    """Selective kernel in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import SK
        >>> layer = SK(64, groups=8)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class BAM(Layer, composite=spec.bam):
    """BAM in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import BAM
        >>> layer = BAM(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class ScSE(Layer, composite=spec.scse):
    """scSE in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import ScSE
        >>> layer = ScSE(64, merge="add")
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class CoordAttention(Layer, composite=spec.coord):
    """Coordinate attention in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import CoordAttention
        >>> layer = CoordAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class SimAM(Layer, composite=spec.simam):
    """SimAM in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import SimAM
        >>> layer = SimAM(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class TripletAttention(Layer, composite=spec.triplet):
    """Triplet attention in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import TripletAttention
        >>> layer = TripletAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class LKA(Layer, composite=spec.lka):
    """LKA in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import LKA
        >>> layer = LKA(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class VANAttention(Layer, composite=spec.van):
    """The attention of VAN in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import VANAttention
        >>> layer = VANAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class SGE(Layer, composite=spec.sge):
    """SGE in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import SGE
        >>> layer = SGE(64, groups=8)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class ShuffleAttention(Layer, composite=spec.shuffle):
    """Shuffle attention in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import ShuffleAttention
        >>> layer = ShuffleAttention(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class EMA(Layer, composite=spec.ema):
    """Efficient multi-scale attention in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import EMA
        >>> layer = EMA(64)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class MRAP(Layer, composite=spec.mrap):
    """MRAP in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import MRAP
        >>> layer = MRAP(64, pool_types=("avg", "std", "max"))
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class SoftmaxAttention(Layer, composite=spec.mhsa):
    """Softmax attention in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import SoftmaxAttention
        >>> layer = SoftmaxAttention(64, num_heads=4)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """


class AgentAttention(Layer, composite=spec.agent):
    """Agent attention in PyTorch.

    Example:
        >>> import torch
        >>> from maam.torch import AgentAttention
        >>> layer = AgentAttention(64, agent_num=9)
        >>> layer(torch.rand(2, 64, 8, 8)).shape
        torch.Size([2, 64, 8, 8])
    """
