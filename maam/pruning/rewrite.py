"""The rewrite of a spec and its weights into a smaller one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maam.errors import DeploymentError
from maam.fusion.parts import Part
from maam.pruning.branches import prune_branches
from maam.pruning.channels import prune_channels
from maam.spec import Node
from maam.spec.fields import plain_number
from maam.weights import match

Array = np.ndarray[Any, Any]


def prune(
    spec: Node, weights: Mapping[str, Array] | None = None, *, min_weight: float = 0.0, channels: float = 0.0
) -> tuple[Node, dict[str, Array]]:
    """A smaller spec and its weights; what it computes is near the old, and can be trained on like any model.

    Args:
        spec: the architecture, not fused: alpha and batch norm tell what matters.
        weights: its arrays by canonical name.
        min_weight: drop the branches whose softmax(alpha)_i is below this, in [0, 1); the heaviest stays always.
        channels: the share of channels to drop in each layer, in [0, 1), those with the smallest batch-norm scale;
            in layers whose channels only the layers behind them in the chain see. At least one stays.

    Returns:
        The new spec and its arrays by canonical name, in their dtypes. Names stay, also where a branch is gone.

    Raises:
        DeploymentError: `spec` is none or the weights are left out, a share is not in [0, 1), or nothing would be
            dropped.
        WeightsError: the arrays do not fit the spec.
    """
    if not isinstance(spec, Node) or weights is None:
        given = "a spec alone" if isinstance(spec, Node) else f"an object of type {type(spec).__name__}"
        raise DeploymentError(
            f"prune: expected a spec and its weights, got {given}; maam.pruning.prune_file takes the path of a weights "
            "file"
        )
    min_weight, channels = _share("min_weight", min_weight), _share("channels", channels)
    arrays, _ = match(spec, weights, source="weights")
    part = prune_channels(
        prune_branches(Part(spec, {n: np.asarray(a) for n, a in arrays.items()}), min_weight), channels
    )
    if part.node.num_parameters == spec.num_parameters:
        raise DeploymentError(
            f"nothing to prune with min_weight {min_weight} and channels {channels}: no branch is that light, and no "
            "layer has so many channels that the share is one of them, or a batch norm that tells which (a fused model "
            "has none)"
        )
    return part.node, {p.name: part.arrays[p.name] for p in part.node.parameters()}


def _share(name: str, value: Any) -> float:
    number = plain_number(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1:
        raise DeploymentError(f"{name}: expected a number in [0, 1), got {value!r}")
    return number
