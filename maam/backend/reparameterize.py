"""What `reparameterize` of a framework's module does before the framework comes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from maam.errors import DeploymentError
from maam.fusion.rewrite import fuse, is_fusible
from maam.spec import Node
from maam.weights.exchange import spec_of

Array = np.ndarray[Any, Any]


def stays_trainable(before: Mapping[str, bool], name: str) -> bool:
    """Whether a fused parameter is trainable: unless all that there was in its layer, or else at all, was frozen.

    Args:
        before: of each parameter before, by name, whether it was trainable.
        name: of the parameter that was fused.
    """
    layer = name.rpartition(".")[0]
    same = [trainable for old, trainable in before.items() if old.rpartition(".")[0] == layer]
    return any(same or before.values())


def fused_form(model: Any, arrays: Mapping[str, Array]) -> tuple[Node, dict[str, Array]] | None:
    """The fused spec and arrays (float64) of a module or cell; None where there is nothing to fuse.

    Args:
        model: what has `spec`, `training` and `reparameterized`.
        arrays: its arrays by canonical name; others may stand among them.

    Raises:
        DeploymentError: it is in train mode, or was fused before.
        WeightsError: an array is missing, or holds NaN or infinity.
    """
    if model.training:
        raise DeploymentError(
            "reparameterize: the model is in train mode, where batch norm does not use its running statistics; "
            "put it into inference mode first: eval() in PyTorch, set_train(False) in MindSpore"
        )
    if model.reparameterized:
        raise DeploymentError("reparameterize: the model is fused already; build or load it anew to train it")
    spec = spec_of(model)
    if not is_fusible(spec):
        return None
    return fuse(spec, {p.name: arrays[p.name] for p in spec.parameters() if p.name in arrays})
