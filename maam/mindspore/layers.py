"""The drop-in layers: each is a composite of `maam.spec` and nothing more."""

from maam import spec
from maam.mindspore.layer import Layer


class MAAM(Layer, composite=spec.maam):
    """Multi-Agent Aggregation Module."""
