"""The drop-in layers: each is a composite of `maam.spec` and nothing more."""

from maam import spec
from maam.torch.layer import Layer


class MAAM(Layer, composite=spec.maam):
    """Multi-Agent Aggregation Module."""


class MAF(Layer, composite=spec.maf):
    """Channel gate of accumulated features."""


class MAFC(Layer, composite=spec.mafc):
    """Channel gate, then spatial gate."""


class MAFB(Layer, composite=spec.mafb):
    """Channel and spatial gate side by side."""


class SE(Layer, composite=spec.se):
    """Squeeze and excitation."""


class CBAM(Layer, composite=spec.cbam):
    """Convolutional block attention module."""
