"""Holding a file's arrays against what a model needs."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maam._messages import is_batch_counter, listed, strip_prefix
from maam.errors import SpecError, WeightsError
from maam.spec import Dropout, Node, Role, head

Array = np.ndarray[Any, Any]
Advice = Callable[[tuple[int, int] | None], str]
_ADVICE = "build the model from the file's own spec with load(), or pass strict=False"


class Mismatch(NamedTuple):
    """Names that stand on one side only."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def match(
    spec: Node,
    arrays: Mapping[str, Array],
    *,
    source: str,
    strict: bool = True,
    skip: Sequence[str] = (),
    advice: Advice = lambda classes: "",
) -> tuple[dict[str, Array], Mismatch]:
    """The arrays that `spec` needs, by canonical name, in the table's order, and what did not match.

    Wrappers' prefixes are taken off, and batch counters ignored. `source` names the file in messages. Arrays of the
    layers named in `skip`, and below them, are neither needed nor taken. The message ends in `advice(classes)`: where
    it is but the number of classes that differs, the file's and the model's, else None.

    Raises:
        WeightsError: an array has the wrong shape or holds NaN or infinity, or a variance is negative; with `strict`,
            a name is missing or unexpected. The message lists every one. Or `skip` names no layer.
    """
    _check_layers(spec, skip)
    given = {name: array for name, array in _canonical(arrays, source).items() if not _below(name, skip)}
    wanted = {p.name: p.shape for p in spec.parameters() if not _below(p.name, skip)}
    missing = tuple(name for name in wanted if name not in given)
    unexpected = tuple(name for name in given if name not in wanted)
    misshapen = [name for name in wanted if name in given and tuple(given[name].shape) != wanted[name]]
    problems = [f"unexpected: {listed(unexpected)}"] if strict and unexpected else []
    problems += [f"missing: {listed(missing)}"] if strict and missing else []
    if misshapen:
        shapes = (f"{name} {tuple(given[name].shape)} instead of {wanted[name]}" for name in misshapen)
        problems.append(f"wrong shape: {', '.join(shapes)}")
    if problems:
        problems.append(advice(_classes(spec, given, misshapen) if problems[0].startswith("wrong") else None))
        raise WeightsError(f"{source}: does not fit the model; {'; '.join(filter(None, problems))}")
    kept = {name: given[name] for name in wanted if name in given}
    _check_finite(kept, source)
    _check_variances(spec, kept, source)
    return kept, Mismatch(missing, unexpected)


def check_same_function(
    own: Node, saved: Node, *, source: str, advice: str = _ADVICE, skip: Sequence[str] = ()
) -> None:
    """Refuse weights that were saved with a spec that computes something else from arrays of the same shapes.

    What acts in training alone (initialisation, momentum, dropout layers), names for people and the layers named in
    `skip` may differ.

    Raises:
        WeightsError: naming the first layer and field that differ, and then `advice`.
    """
    difference = _difference(own, saved, "", skip)
    if difference is not None:
        raise WeightsError(f"{source}: saved with another spec: {difference}; {advice}")


def _check_layers(spec: Node, skip: Sequence[str]) -> None:
    if isinstance(skip, str) or not isinstance(skip, Collection):
        hint = f"; write ({skip!r},)" if isinstance(skip, str) else ""
        raise WeightsError(f"skip: expected a sequence of layer names, got {skip!r}{hint}")
    paths = [path for path, _ in spec.walk() if path]
    for name in skip:
        if name not in paths:
            close = difflib.get_close_matches(str(name), paths, 1)
            hint = f"did you mean {listed(close)}?" if close else f"its layers: {listed(spec.nodes)}"
            raise WeightsError(f"skip: the model has no layer {listed([str(name)])}; {hint}")


def _below(name: str, layers: Sequence[str]) -> bool:
    return any(name == layer or name.startswith(f"{layer}.") for layer in layers)


def _classes(spec: Node, given: Mapping[str, Array], misshapen: Sequence[str]) -> tuple[int, int] | None:
    """The numbers of classes of the file and of the model, where nothing else differs."""
    try:
        layer = head(spec)
    except SpecError:
        return None
    shapes = {f"{layer}.{p.name}": p.shape for p in spec.at(layer).own_parameters()}
    if not misshapen or set(misshapen) != set(shapes):
        return None
    pairs = [(given[name].shape, shape) for name, shape in shapes.items()]
    if any(found[1:] != own[1:] or not found for found, own in pairs):
        return None
    sizes = {(found[0], own[0]) for found, own in pairs}
    return sizes.pop() if len(sizes) == 1 else None


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


def _check_variances(spec: Node, arrays: Mapping[str, Array], source: str) -> None:
    variances = (p.name for p in spec.parameters() if p.role is Role.RUNNING_VAR and p.name in arrays)
    if bad := [name for name in variances if (arrays[name] < 0).any()]:
        raise WeightsError(f"{source}: negative values in {listed(bad)}, which are variances; the file is broken")


def _difference(own: Node, saved: Node, path: str, skip: Sequence[str]) -> str | None:
    """The first difference, the layers in running order, or None."""
    if own.kind != saved.kind:
        return _sentence(path or "the whole", f"a {own.kind}", f"a {saved.kind}")
    if isinstance(own, Dropout):
        return None
    theirs = saved.function_fields()
    for field, value in own.function_fields().items():
        if value != theirs.get(field):
            return _sentence(_join(path, field), repr(value), repr(theirs.get(field)))
    return _layer_difference(_layers(own, path, skip), _layers(saved, path, skip), path, skip)


def _layer_difference(own: dict[str, Node], saved: dict[str, Node], path: str, skip: Sequence[str]) -> str | None:
    for name in [*own, *saved]:
        if name not in own or name not in saved:
            here, there = (f"a {nodes[name].kind}" if name in nodes else "absent" for nodes in (own, saved))
            return _sentence(_join(path, name), here, there)
    for index, (here, there) in enumerate(zip(own, saved, strict=True)):
        if here != there:
            return _sentence(f"layer {index} of {path or 'the whole'}", here, there)
    found = (_difference(node, saved[name], _join(path, name), skip) for name, node in own.items())
    return next((difference for difference in found if difference is not None), None)


def _layers(node: Node, path: str, skip: Sequence[str]) -> dict[str, Node]:
    """The layers to compare."""
    nodes = node.nodes.items()
    return {name: child for name, child in nodes if not isinstance(child, Dropout) and _join(path, name) not in skip}


def _sentence(what: str, own: str, saved: str) -> str:
    return f"{what} is {saved[:60]} in the file and {own[:60]} in the model"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
