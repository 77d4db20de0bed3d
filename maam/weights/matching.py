"""Holding a file's arrays against what a model needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.errors import WeightsError
from maam.names import strip_prefix
from maam.spec import Node

Array = np.ndarray[Any, Any]
_TRAINING_ONLY = frozenset({"init", "name", "momentum", "p"})


class Mismatch(NamedTuple):
    """Names that stand on one side only."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def match(
    spec: Node, arrays: Mapping[str, Array], *, source: str, strict: bool = True
) -> tuple[dict[str, Array], Mismatch]:
    """The arrays that `spec` needs, by canonical name, in the table's order, and what did not match.

    Wrappers' prefixes are taken off, and batch counters ignored. `source` names the file in messages.

    Raises:
        WeightsError: an array has the wrong shape or holds NaN or infinity; with `strict`, a name is missing or
            unexpected. The message lists every one.
    """
    given = _canonical(arrays, source)
    wanted = {p.name: p.shape for p in spec.parameters()}
    missing = tuple(name for name in wanted if name not in given)
    unexpected = tuple(name for name in given if name not in wanted)
    misshapen = [
        f"{name} {tuple(given[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in given and tuple(given[name].shape) != shape
    ]
    problems = [f"wrong shape: {', '.join(misshapen)}"] if misshapen else []
    if strict and missing:
        problems.insert(0, f"missing: {', '.join(missing)}")
    if strict and unexpected:
        problems.insert(0, f"unexpected: {', '.join(unexpected)}")
    if problems:
        raise WeightsError(f"{source}: does not fit the model; {'; '.join(problems)}")
    kept = {name: given[name] for name in wanted if name in given}
    _check_finite(kept, source)
    return kept, Mismatch(missing, unexpected)


def check_same_function(own: Node, saved: Node, *, source: str) -> None:
    """Refuse weights that were saved with a spec that computes something else from arrays of the same shapes.

    Fields that act in training alone (initialisation, momentum, dropout) and names for people may differ.

    Raises:
        WeightsError: naming the first layer and field that differ.
    """
    difference = _difference(own.to_document(), saved.to_document(), "")
    if difference is not None:
        raise WeightsError(
            f"{source}: saved with another spec: {difference}; build the model from the file's own spec with load(), "
            "or pass strict=False"
        )


def _canonical(arrays: Mapping[str, Array], source: str) -> dict[str, Array]:
    given: dict[str, Array] = {}
    for name, array in arrays.items():
        short = strip_prefix(name)
        if short.rpartition(".")[2] == "num_batches_tracked":
            continue
        if short in given:
            raise WeightsError(f"{source}: {short} stands there twice, once with a wrapper's prefix")
        given[short] = array
    return given


def _check_finite(arrays: Mapping[str, Array], source: str) -> None:
    bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(f"{source}: NaN or infinity in {', '.join(bad)}; the run that saved it diverged")


def _difference(own: Any, saved: Any, path: str) -> str | None:
    if isinstance(own, dict) and isinstance(saved, dict):
        if own.get("kind") == "dropout" == saved.get("kind"):
            return None
        for name in [*own, *(name for name in saved if name not in own)]:
            if name in _TRAINING_ONLY and not isinstance(own.get(name), dict):
                continue
            below = path if name in ("children", "weighting") else f"{path}.{name}".removeprefix(".")
            found = _difference(own.get(name), saved.get(name), below)
            if found is not None:
                return found
        return None
    return None if own == saved else f"{path} is {_short(saved)} in the file and {_short(own)} in the model"


def _short(value: Any) -> str:
    text = f"a {value['kind']}" if isinstance(value, dict) and "kind" in value else repr(value)
    return "absent" if value is None else text[:60]
