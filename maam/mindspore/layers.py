"""The layer classes: each is a composite of `maam.spec` as a `mindspore.nn.Cell`.

`layers.pyi` beside this file shows their signatures to editors and type checkers. `tools/stubs.py` writes it.
"""

from __future__ import annotations

from maam import spec
from maam.mindspore.cells import Layer

__all__ = ["CBAM", "MAAM", "MAF", "MAFB", "MAFC", "SE", "Layer"]


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
