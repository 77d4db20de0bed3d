"""Attention layers in torchvision's networks.

Each classifier of torchvision is a function of this module with one more argument:
`maam.torchvision.resnet18("mafc", num_classes=10)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from maam.errors import require

require("torch", "torch")
require("torchvision", "torch")

from maam.torch.insertion import list_attention  # noqa: E402
from maam.torchvision.insert import insert_attention  # noqa: E402
from maam.torchvision.models import create_model, list_models, make_builder  # noqa: E402

if TYPE_CHECKING:
    from torch import nn

__all__ = ["create_model", "insert_attention", "list_attention"]


def __getattr__(name: str) -> Callable[..., nn.Module]:
    return make_builder(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *list_models()])
