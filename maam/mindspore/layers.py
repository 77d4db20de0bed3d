"""The layer classes: each is a composite of `maam.spec` as a `mindspore.nn.Cell`.

`layers.pyi` beside this file shows their signatures to editors and type checkers. `tools/stubs.py` writes it.
"""

from __future__ import annotations

from maam import spec
from maam.mindspore.cells import Layer

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
    """MAAM in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MAAM
        >>> layer = MAAM(4, 8, num_agents=2, pool=2)
        >>> layer(ops.ones((2, 4, 8, 8))).shape
        (2, 8, 4, 4)
        >>> layer.agents.alpha.asnumpy()  # one learnable weight for each branch
        array([0., 0.], dtype=float32)
    """


class MAF(Layer, composite=spec.maf):
    """MAF in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MAF
        >>> layer = MAF(64, rd_ratio=1 / 8)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class MAFC(Layer, composite=spec.mafc):
    """MAF_C in MindSpore.

    Example:
        >>> from mindspore import nn, ops
        >>> from maam.mindspore import MAFC
        >>> block = nn.SequentialCell(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), MAFC(64), nn.ReLU())
        >>> block(ops.ones((2, 3, 8, 8))).shape
        (2, 64, 8, 8)
    """


class MAFB(Layer, composite=spec.mafb):
    """MAF_B in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MAFB
        >>> layer = MAFB(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class SE(Layer, composite=spec.se):
    """Squeeze and excitation in MindSpore.

    Example:
        >>> from mindspore import nn, ops
        >>> from maam.mindspore import SE
        >>> layer = SE(64, act_layer=nn.SiLU)  # a class or the name "silu"
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class CBAM(Layer, composite=spec.cbam):
    """CBAM in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import CBAM
        >>> layer = CBAM(64, spatial=False)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class ESE(Layer, composite=spec.ese):
    """Effective SE in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import ESE
        >>> layer = ESE(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class ECA(Layer, composite=spec.eca):
    """ECA in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import ECA
        >>> layer = ECA(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class GC(Layer, composite=spec.gc):
    """Global context in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import GC
        >>> layer = GC(64, fuse_add=True)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class GE(Layer, composite=spec.ge):
    """Gather and excite in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import GE
        >>> layer = GE(64, extent=4)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class GCT(Layer, composite=spec.gct):
    """Gated channel transformation in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import GCT
        >>> layer = GCT(64, mode="l1")
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class SK(Layer, composite=spec.sk):
    """Selective kernel in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import SK
        >>> layer = SK(64, groups=8)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class BAM(Layer, composite=spec.bam):
    """BAM in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import BAM
        >>> layer = BAM(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class ScSE(Layer, composite=spec.scse):
    """scSE in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import ScSE
        >>> layer = ScSE(64, merge="add")
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class CoordAttention(Layer, composite=spec.coord):
    """Coordinate attention in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import CoordAttention
        >>> layer = CoordAttention(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class SimAM(Layer, composite=spec.simam):
    """SimAM in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import SimAM
        >>> layer = SimAM(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class TripletAttention(Layer, composite=spec.triplet):
    """Triplet attention in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import TripletAttention
        >>> layer = TripletAttention(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class LKA(Layer, composite=spec.lka):
    """LKA in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import LKA
        >>> layer = LKA(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class VANAttention(Layer, composite=spec.van):
    """The attention of VAN in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import VANAttention
        >>> layer = VANAttention(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class SGE(Layer, composite=spec.sge):
    """SGE in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import SGE
        >>> layer = SGE(64, groups=8)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class ShuffleAttention(Layer, composite=spec.shuffle):
    """Shuffle attention in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import ShuffleAttention
        >>> layer = ShuffleAttention(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class EMA(Layer, composite=spec.ema):
    """Efficient multi-scale attention in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import EMA
        >>> layer = EMA(64)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class MRAP(Layer, composite=spec.mrap):
    """MRAP in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import MRAP
        >>> layer = MRAP(64, pool_types=("avg", "std", "max"))
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class SoftmaxAttention(Layer, composite=spec.mhsa):
    """Softmax attention in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import SoftmaxAttention
        >>> layer = SoftmaxAttention(64, num_heads=4)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """


class AgentAttention(Layer, composite=spec.agent):
    """Agent attention in MindSpore.

    Example:
        >>> from mindspore import ops
        >>> from maam.mindspore import AgentAttention
        >>> layer = AgentAttention(64, agent_num=9)
        >>> layer(ops.ones((2, 64, 8, 8))).shape
        (2, 64, 8, 8)
    """
