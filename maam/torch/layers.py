"""The layer classes: each is a composite of `maam.spec` as a `torch.nn.Module`.

`layers.pyi` beside this file shows their signatures to editors and type checkers. `tools/stubs.py` writes it.
"""

from __future__ import annotations

from maam import spec
from maam.torch.modules import Layer

__all__ = ["CBAM", "MAAM", "MAF", "MAFB", "MAFC", "SE", "Layer"]


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
