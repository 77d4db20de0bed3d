"""Holding a file's arrays against what a model needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam.errors import WeightsError
from maam.names import is_batch_counter, listed, strip_prefix
from maam.spec import Dropout, Node

Array = np.ndarray[Any, Any]
_NOT_COMPUTED = frozenset({"init", "input_shape", "momentum", "name"})
_ADVICE = "build the model from the file's own spec with load(), or pass strict=False"


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
        problems.insert(0, f"missing: {listed(missing)}")
    if strict and unexpected:
        problems.insert(0, f"unexpected: {listed(unexpected)}")
    if problems:
        raise WeightsError(f"{source}: does not fit the model; {'; '.join(problems)}")
    kept = {name: given[name] for name in wanted if name in given}
    _check_finite(kept, source)
    return kept, Mismatch(missing, unexpected)


def check_same_function(own: Node, saved: Node, *, source: str, advice: str = _ADVICE) -> None:
    """Refuse weights that were saved with a spec that computes something else from arrays of the same shapes.

    What acts in training alone (initialisation, momentum, dropout layers) and names for people may differ.

    Raises:
        WeightsError: naming the first layer and field that differ, and then `advice`.
    """
    difference = _difference(own, saved, "")
    if difference is not None:
        raise WeightsError(f"{source}: saved with another spec: {difference}; {advice}")


def _canonical(arrays: Mapping[str, Array], source: str) -> dict[str, Array]:
    given: dict[str, Array] = {}
    for name, array in arrays.items():
        short = strip_prefix(name)
        if is_batch_counter(short):
            continue
        if short in given:
            raise WeightsError(f"{source}: {listed([short])} stands there twice, once with a wrapper's prefix")
        given[short] = array
    return given


def _check_finite(arrays: Mapping[str, Array], source: str) -> None:
    with np.errstate(invalid="ignore"):  # ml_dtypes warns of the NaN that is looked for
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise WeightsError(f"{source}: NaN or infinity in {listed(bad)}; the run that saved it diverged")


def _difference(own: Node, saved: Node, path: str) -> str | None:
    """The first difference, the layers in running order, or None."""
    if own.kind != saved.kind:
        return _sentence(path or "the whole", f"a {own.kind}", f"a {saved.kind}")
    if isinstance(own, Dropout):
        return None
    for field in type(own).model_fields:
        values = getattr(own, field), getattr(saved, field)
        if field not in _NOT_COMPUTED and not isinstance(values[0], (Node, dict)) and values[0] != values[1]:
            return _sentence(_join(path, field), *(repr(value) for value in values))
    return _layer_difference(_layers(own), _layers(saved), path)


def _layer_difference(own: dict[str, Node], saved: dict[str, Node], path: str) -> str | None:
    for name in [*own, *saved]:
        if name not in own or name not in saved:
            here, there = (f"a {nodes[name].kind}" if name in nodes else "absent" for nodes in (own, saved))
            return _sentence(_join(path, name), here, there)
    for index, (here, there) in enumerate(zip(own, saved, strict=True)):
        if here != there:
            return _sentence(f"layer {index} of {path or 'the whole'}", here, there)
    found = (_difference(node, saved[name], _join(path, name)) for name, node in own.items())
    return next((difference for difference in found if difference is not None), None)


def _layers(node: Node) -> dict[str, Node]:
    return {name: child for name, child in node.nodes.items() if not isinstance(child, Dropout)}


def _sentence(what: str, own: str, saved: str) -> str:
    return f"{what} is {saved[:60]} in the file and {own[:60]} in the model"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
