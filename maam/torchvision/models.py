"""Classifiers of torchvision with an attention layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torchvision
from torch import nn

from maam._messages import listed, shortened, suggestion
from maam._options import check_insertion, check_integer, refused_options
from maam._registration import unknown_model
from maam.errors import PresetError, WeightsError
from maam.spec import list_presets
from maam.torch.insertion import MakeLayer
from maam.torchvision.insert import insert_attention


def create_model(
    name: str,
    attention: str | MakeLayer | None = None,
    *,
    every_block: bool = False,
    identity_init: bool = False,
    where: str | Sequence[str] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a model with `torchvision.models.get_model` and insert an attention layer.

    Args:
        name: a classifier of torchvision.
        attention: see `insert_attention`; None inserts nothing.
        every_block: see `insert_attention`.
        identity_init: see `insert_attention`.
        where: see `insert_attention`.
        options: arguments of torchvision's builder, such as `num_classes` and `weights`. Weights are loaded before
            attention is inserted.

    Returns:
        The network, from (N, 3, H, W) to the logits (N, num_classes).

    Raises:
        PresetError: torchvision has no classifier of that name, or refuses an option.
        SpecError: see `insert_attention`; or an argument of the insertion is set without `attention`.
        WeightsError: torchvision has no such weights for the classifier.

    Example:
        >>> import torch
        >>> from maam.torchvision import create_model
        >>> network = create_model("mobilenet_v3_small", attention="mafc", num_classes=10)
        >>> network(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """
    if str(name).lower() not in list_models():  # torchvision ignores case
        if name in list_presets():
            raise PresetError(
                f"{name!r} is a preset of maam, not a model of torchvision; use maam.torch.build({name!r}) or "
                f"maam.timm.create_model({name!r})"
            )
        raise unknown_model(name, list_models(), "maam.torchvision.list_models()")
    settings: dict[str, Any] = {"every_block": every_block, "identity_init": identity_init, "where": where}
    if attention is None:
        check_insertion(settings)
    if "num_classes" in options:
        check_integer("num_classes", options["num_classes"], 1)
    _check_weights(name, options.get("weights"))
    with refused_options("torchvision", name, options, ("num_classes", "weights", "progress")):
        network: nn.Module = torchvision.models.get_model(name, **options)
    return network if attention is None else insert_attention(network, attention, **settings)


def _check_weights(name: str, weights: object) -> None:
    known = torchvision.models.get_model_weights(name)
    if weights is None or isinstance(weights, known):
        return
    if not isinstance(weights, str) or weights.removeprefix(f"{known.__name__}.") not in known.__members__:
        names = listed(map(repr, known.__members__))
        raise WeightsError(f"weights: expected one of {names} or None for {name!r}, got {shortened(weights)}")


def list_models() -> list[str]:
    """Return the names of the classifiers of torchvision, which are also names in `maam.torchvision`."""
    names: list[str] = torchvision.models.list_models(torchvision.models)
    return names


def make_builder(name: str) -> Callable[..., nn.Module]:
    """Return `create_model` for one classifier, without the argument `name`.

    Raises:
        AttributeError: torchvision has no classifier of that name.
    """
    if name not in list_models():
        hint = suggestion(name, list_models())
        raise AttributeError(f"module 'maam.torchvision' has no attribute {name!r}{hint and f'; {hint}'}")

    def build(attention: str | MakeLayer | None = None, **options: Any) -> nn.Module:
        return create_model(name, attention, **options)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Build {name!r} of torchvision; see `maam.torchvision.create_model` for the arguments."
    return build
