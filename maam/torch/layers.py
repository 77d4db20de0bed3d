"""The drop-in layers: each is a composite of `maam.spec` and nothing more."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from maam import spec
from maam.backend.layers import arguments_of, layer_signature
from maam.torch.modules import Container
from maam.torch.primitives import ACTIVATIONS, NORMS

_OWN = ("device", "dtype")


class Layer(Container):
    """A composite of `maam.spec` as a layer class: `class SE(Layer, composite=spec.se)` is all that one takes.

    The class has the composite's arguments, and `device` and `dtype`. Activation and normalisation arguments
    (`act_layer`, `gate_layer`, `norm_layer`) also take the PyTorch class; the spec keeps the name.
    """

    composite: ClassVar[Callable[..., spec.Node]]
    __signature__: ClassVar[inspect.Signature | None]

    def __init_subclass__(cls, composite: Callable[..., spec.Node] | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if composite is not None:
            cls.composite = staticmethod(composite)
            cls.__signature__ = layer_signature(composite, _OWN)
            cls.__doc__ = composite.__doc__
        elif "__init__" in cls.__dict__:
            cls.__signature__ = None  # inspect then reads the subclass's own __init__

    def __init__(
        self,
        *args: Any,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **kwargs: Any,
    ) -> None:
        arguments = arguments_of(type(self).composite, args, kwargs, ACTIVATIONS, NORMS)
        node = type(self).composite(**arguments)
        super().__init__(node, device=device, dtype=dtype)  # type: ignore[arg-type]
        self.arguments = arguments
        self.rule = spec.input_rule(node)

    def extra_repr(self) -> str:
        """The arguments that the layer was made with."""
        return ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())


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
