"""The framework-independent part of `reparameterize`, which fuses a model in place for deployment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from maam.backend.integrity import check_integrity, check_methods
from maam.errors import DeploymentError
from maam.spec import Node
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]


def fused_form(model: Any, read_arrays: Callable[[Any], Mapping[str, Array]]) -> tuple[Node, dict[str, Array]] | None:
    """Return the fused spec of a model and its arrays (float64), or None if there is nothing to fuse.

    Args:
        model: a container with the attributes `spec`, `rule`, `training`, `reparameterized` and `joins_branches`.
        read_arrays: a function that returns its arrays by canonical name; arrays that the spec does not name are
            ignored.

    Raises:
        DeploymentError: the model is in train mode, is already fused, or has a layer that differs from its spec.
        WeightsError: an array is missing, or holds NaN or infinity.
    """
    if model.rule is None and model.reparameterized:  # timm also calls `reparameterize` on the layers inside
        return None
    from maam.fusion.rewrite import fuse, is_fusible  # only models that are fused need it

    check_integrity(model, "reparameterize", DeploymentError)
    check_methods(model, "reparameterize", DeploymentError, root=False)  # containers inside are built again
    arrays = read_arrays(model)
    if model.training:
        raise DeploymentError(
            "reparameterize: the model is in train mode, where batch norm does not use its running statistics; "
            "call eval() in PyTorch, set_train(False) in MindSpore first"
        )
    if model.reparameterized:
        raise DeploymentError("reparameterize: the model is already fused; build or load it again to train it")
    spec = spec_of(model)
    if not is_fusible(spec):
        return None
    join = model.rule is not None and model.joins_branches  # not in a container inside, whose layers others can name
    return fuse(spec, {p.name: arrays[p.name] for p in spec.parameters() if p.name in arrays}, join=join)


def stays_trainable(before: Mapping[str, bool], name: str) -> bool:
    """Return whether a parameter of the fused model is trainable.

    It is frozen if all former parameters of its layer were frozen. A parameter of a new layer is frozen if all
    parameters of the model were frozen.

    Args:
        before: whether each former parameter was trainable, by name.
        name: the name of the parameter in the fused model.
    """
    layer = name.rpartition(".")[0]
    same = [trainable for old, trainable in before.items() if old.rpartition(".")[0] == layer]
    return any(same or before.values())
