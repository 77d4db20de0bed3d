"""Comparison of named arrays with a spec: names, shapes, values, and the function that the layers compute."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from maam._messages import listed, suggestion
from maam.errors import SpecError, WeightsError
from maam.spec import Dropout, Node, Role, head
from maam.spec.fields import Shape
from maam.spec.node import is_within, join_path

Array = np.ndarray[Any, Any]
Value = TypeVar("Value")
Advice = Callable[[tuple[int, int] | None], str]
"""A function that returns the end of an error message.

Its argument is (classes of the file, classes of the model), or None if more than the number of classes differs.
"""
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DataParallel, DistributedDataParallel and torch.compile add to names, in any order and number."""

INNER_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")
"""Parts of names that torch.compile and `checkpoint_wrapper` add if they wrap a layer inside the model."""


class Mismatch(NamedTuple):
    """Parameter names that are in only one of model and file.

    Attributes:
        missing: names that the model has and the file does not.
        unexpected: names that the file has and the model does not.

    Example:
        >>> from maam.weights import Mismatch
        >>> Mismatch(missing=("classifier.weight",), unexpected=()).missing
        ('classifier.weight',)
    """

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


def strip_prefix(name: str) -> str:
    """Return a parameter name without the prefixes of wrappers around the model, and the names of wrappers in it."""
    while name.startswith(WRAPPER_PREFIXES):
        name = name.split(".", 1)[1]
    if "._" not in name and not name.startswith("_"):
        return name
    return ".".join(part for part in name.split(".") if part not in INNER_WRAPPERS)


def strip_prefixes(values: Mapping[str, Value]) -> dict[str, Value]:
    """Return the values under their names without the prefixes of wrappers."""
    return {strip_prefix(name): value for name, value in values.items()}


def names_of(spec: Node) -> frozenset[str]:
    """Return the canonical names of a spec's parameters and running statistics."""
    return frozenset(parameter.name for parameter in spec.parameters())


def is_batch_counter(name: str) -> bool:
    """Return whether a name is `num_batches_tracked` of a PyTorch batch norm, which other frameworks do not have."""
    return name.rpartition(".")[2] == "num_batches_tracked"


def match(
    spec: Node,
    arrays: Mapping[str, Array],
    *,
    source: str,
    strict: bool = True,
    skip: Sequence[str] = (),
    advice: Advice = lambda classes: "",
) -> tuple[dict[str, Array], Mismatch]:
    """Return the arrays that a spec needs, and the names that are missing or unexpected.

    Prefixes of wrappers such as DataParallel are removed; `num_batches_tracked` is ignored.

    Args:
        spec: the architecture.
        arrays: arrays by name.
        source: the file's name, for messages.
        strict: whether a missing or unexpected name is an error.
        skip: names of layers whose arrays are ignored, in the spec and in `arrays`.
        advice: returns the end of the message for shapes that do not fit.

    Returns:
        The arrays by canonical name, in the order of `spec.parameters()`, and the mismatch.

    Raises:
        WeightsError: an array has the wrong shape, NaN or infinity, or a variance is negative; with `strict`, a name
            is missing or unexpected; or `skip` names an unknown layer. The message names the first 15.

    Example:
        >>> import numpy as np
        >>> from maam import spec
        >>> from maam.weights import match
        >>> layer = spec.Linear(in_features=2, out_features=1)
        >>> arrays = {"module.weight": np.zeros((1, 2)), "module.bias": np.zeros(1)}
        >>> found, mismatch = match(layer, arrays, source="example")
        >>> list(found), mismatch
        (['weight', 'bias'], Mismatch(missing=(), unexpected=()))
    """
    if not isinstance(spec, Node):
        raise WeightsError(
            f"{source}: expected a spec, got an object of type {type(spec).__name__}; the attribute .spec of a model "
            "of maam is one"
        )
    _check_layers(spec, skip)
    given = {name: array for name, array in _canonical(arrays, source).items() if not is_within(name, skip)}
    wanted = {p.name: p.shape for p in spec.parameters() if not is_within(p.name, skip)}
    missing = tuple(name for name in wanted if name not in given)
    unexpected = tuple(name for name in given if name not in wanted)
    misshapen = [name for name in wanted if name in given and tuple(given[name].shape) != wanted[name]]
    problems = [f"unexpected: {listed(unexpected)}"] if strict and unexpected else []
    problems += [f"missing: {listed(missing)}"] if strict and missing else []
    if misshapen:
        shapes = [f"{name} {tuple(given[name].shape)} instead of {wanted[name]}" for name in misshapen]
        problems.append(f"wrong shape: {listed(shapes)}")
    if problems:
        if missing and (prefix := _common_start(given, wanted)):
            advised = f"pass prefix={prefix!r} (--prefix {prefix}) to leave out the others"
            problems = [f"the names below {prefix!r} fit; {advised}"]
        problems.append(advice(_classes(spec, given, misshapen) if problems[0].startswith("wrong") else None))
        raise WeightsError(f"{source}: does not fit the model; {'; '.join(filter(None, problems))}")
    found = {name: given[name] for name in wanted if name in given}
    _check_finite(found, source)
    _check_variances(spec, found, source)
    return found, Mismatch(missing, unexpected)


def _common_start(given: Collection[str], wanted: Collection[str]) -> str:
    """Return the prefix below which `given` has all `wanted` names, or ""."""
    some = next(iter(wanted), "")
    starts = (name.removesuffix(f".{some}") for name in given if some and name.endswith(f".{some}"))
    return next((start for start in starts if all(f"{start}.{name}" in given for name in wanted)), "")


def _check_layers(spec: Node, skip: Sequence[str]) -> None:
    if isinstance(skip, str) or not isinstance(skip, Collection):
        hint = f"; write ({skip!r},)" if isinstance(skip, str) else ""
        raise WeightsError(f"skip: expected a sequence of layer names, got {skip!r}{hint}")
    paths = [path for path, _ in spec.walk() if path]
    for name in skip:
        if name not in paths:
            hint = suggestion(name, paths, f"its layers: {listed(spec.nodes)}")
            raise WeightsError(f"skip: the model has no layer {listed([str(name)])}; {hint}")


def _classes(spec: Node, given: Mapping[str, Array], misshapen: Sequence[str]) -> tuple[int, int] | None:
    """Return the numbers of classes of file and model, if nothing else differs."""
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
            raise WeightsError(f"{source}: {listed([short])} occurs twice, with and without the prefix of a wrapper")
        given[short] = array
    return given


def _check_finite(arrays: Mapping[str, Array], source: str) -> None:
    with np.errstate(invalid="ignore"):  # ml_dtypes warns about NaN
        bad = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if bad:
        raise not_finite(bad, source)


def not_finite(names: Sequence[str], source: str) -> WeightsError:
    """Return the error for arrays of a file that are not finite."""
    return WeightsError(f"{source}: NaN or infinity in {listed(names)}; the training run that saved it has diverged")


def arrays_of_other_classes(layers: Sequence[str], own: Mapping[str, Shape], found: Mapping[str, Shape]) -> list[str]:
    """Return the names of arrays of a network's last layers that differ from those of a file in the first size only.

    Args:
        layers: the names of the last layers.
        own: the shapes of the network's arrays by name.
        found: the shapes of the file's arrays by name.
    """
    shapes = [(name, shape, found[name]) for name, shape in own.items() if name in found and is_within(name, layers)]
    return [name for name, shape, other in shapes if shape != other and shape[1:] == other[1:]]


def _check_variances(spec: Node, arrays: Mapping[str, Array], source: str) -> None:
    variances = (p.name for p in spec.parameters() if p.role is Role.RUNNING_VAR and p.name in arrays)
    if bad := [name for name in variances if (arrays[name] < 0).any()]:
        raise WeightsError(f"{source}: negative variances in {listed(bad)}; the file is broken")


_ADVICE = "build the model from the file's own spec with load(), or pass strict=False"


def check_same_function(
    own: Node, saved: Node, *, source: str, advice: str = _ADVICE, skip: Sequence[str] = ()
) -> None:
    """Check that two specs compute the same from the same arrays.

    Initialization, momentum, dropout, `name` and `input_shape` may differ.

    Args:
        own: the model's spec.
        saved: the file's spec.
        source: the file's name, for messages.
        advice: the end of the message.
        skip: names of layers that may differ.

    Raises:
        WeightsError: a layer or field differs; the message names the first one.
    """
    difference = _difference(own, saved, "", skip)
    if difference is not None:
        raise WeightsError(f"{source}: saved with another spec: {difference}; {advice}")


def _difference(own: Node, saved: Node, path: str, skip: Sequence[str]) -> str | None:
    if own.kind != saved.kind:
        return _sentence(path or "the outermost layer", f"a {own.kind}", f"a {saved.kind}")
    if isinstance(own, Dropout):
        return None
    theirs = saved.function_fields()
    for field, value in own.function_fields().items():
        if value != theirs.get(field):
            return _sentence(join_path(path, field), repr(value), repr(theirs.get(field)))
    return _layer_difference(_layers(own, path, skip), _layers(saved, path, skip), path, skip)


def _layer_difference(own: dict[str, Node], saved: dict[str, Node], path: str, skip: Sequence[str]) -> str | None:
    for name in [*own, *saved]:
        if name not in own or name not in saved:
            here, there = (f"a {nodes[name].kind}" if name in nodes else "absent" for nodes in (own, saved))
            return _sentence(join_path(path, name), here, there)
    for index, (here, there) in enumerate(zip(own, saved, strict=True)):
        if here != there:
            return _sentence(f"layer {index} of {path or 'the model'}", here, there)
    found = (_difference(node, saved[name], join_path(path, name), skip) for name, node in own.items())
    return next((difference for difference in found if difference is not None), None)


def _layers(node: Node, path: str, skip: Sequence[str]) -> dict[str, Node]:
    nodes = node.nodes.items()
    return {
        name: child for name, child in nodes if not isinstance(child, Dropout) and join_path(path, name) not in skip
    }


def _sentence(what: str, own: str, saved: str) -> str:
    return f"{what} is {saved[:60]} in the file and {own[:60]} in the model"
