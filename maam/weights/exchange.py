"""What loading and saving have in common in all frameworks."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from maam._messages import listed
from maam.errors import SpecError, WeightsError
from maam.spec import Model, Node, draw, head, with_num_classes
from maam.weights.file import read_weights, write_weights
from maam.weights.match import Mismatch, check_same_function, match

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
Dtypes = Mapping[str, np.dtype[Any]]
_NEVER_FUSED = (".running_mean", "alpha")
"""Arrays of batch norm and of learned branch weights, which fusion does away with."""


class Slot(NamedTuple):
    """What an array of a model takes; the dtype is None where no weights file has it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None


Slots = Mapping[str, Slot]


def spec_of(model: object) -> Node:
    """The spec that a model or layer carries.

    Raises:
        WeightsError: it was not built by maam.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, Node):
        raise WeightsError(f"{type(model).__name__} has no .spec; give a model or layer that maam built or loaded")
    return spec


def check_model(model: object, expected: type, name: str, act: str) -> None:
    """Refuse what is no model of the framework, whose class is `expected` and called `name`.

    Raises:
        WeightsError: it is none.
    """
    if not isinstance(model, expected):
        raise WeightsError(
            f"{act}: expected a {name} and then a path, got an object of type {type(model).__name__}; "
            "maam.weights.write_weights(path, spec, arrays) takes arrays, and each framework its own models"
        )


def save_model(path: PathLike, model: object, arrays: Mapping[str, Array]) -> None:
    """Write a model's spec and arrays, which must be what `load` takes.

    Raises:
        WeightsError: the model was not built by maam; `arrays` are not those of its spec, or are not finite; or the
            file cannot be written. A file that was there stays.
    """
    spec = spec_of(model)
    write_weights(path, spec, match(spec, arrays, source=f"save_weights: {type(model).__name__}")[0])


def load_into(
    model: object,
    path: PathLike,
    strict: bool,
    skip: Sequence[str],
    slots: Callable[[Any], Slots],
    write: Callable[[Any, Mapping[str, Array]], None],
) -> Mismatch:
    """Read `path`, hold it against `model.spec` less `skip`, and `write(model, arrays)`, cast as `slots(model)` are.

    Raises:
        WeightsError: as `read_weights`, `match`, `cast` and, with `strict`, `check_same_function` do; or the file is
            of the fused form and the model is not, or the reverse; or the model has not the arrays that its spec
            says. The model is then as it was.
    """
    spec = spec_of(model)
    saved, arrays = read_weights(path)
    _check_form(spec, arrays, str(path))
    advice = functools.partial(_advice, spec, saved)
    matched, mismatch = match(spec, arrays, source=str(path), strict=strict, skip=skip, advice=advice)
    if strict:
        check_same_function(spec, saved, source=str(path), skip=skip)
    own = slots(model)
    _check_slots(own, matched, str(path))
    write(model, cast(matched, {name: slot.dtype for name, slot in own.items() if slot.dtype}, source=str(path)))
    return mismatch


def _check_form(spec: Node, arrays: Mapping[str, Array], path: str) -> None:
    """Refuse weights of the fused form for an unfused model, and the reverse: some of the names are the same.

    One may be the other's fused form where it has neither batch norm nor learned branch weights, and all its names but
    those of biases are there too.
    """
    own, given = {parameter.name for parameter in spec.parameters()}, set(arrays)
    if _is_fused(own, given):
        raise WeightsError(
            f"{path}: the model is fused for deployment, and the file is not: load the file first, then call "
            "reparameterize(), or load a file that `maam fuse` wrote"
        )
    if _is_fused(given, own):
        raise WeightsError(
            f"{path}: the file is fused for deployment, and the model is not: load(path) builds the file's own"
        )


def _is_fused(names: set[str], others: set[str]) -> bool:
    unfused = [{name for name in each if name.endswith(_NEVER_FUSED)} for each in (names, others)]
    return not unfused[0] and bool(unfused[1]) and {n for n in names if not n.endswith(".bias")} <= others


def _check_slots(own: Slots, arrays: Mapping[str, Array], path: str) -> None:
    for name, array in arrays.items():
        if name not in own or own[name].shape != array.shape:
            there = f"has the shape {own[name].shape}" if name in own else "is absent"
            raise WeightsError(
                f"{path}: {name} {array.shape} {there} in the model, whose layer was replaced; leave the layer out "
                f"(skip=({name.rpartition('.')[0]!r},)), or build the model with it: load(path, num_classes=...)"
            )


def read_whole(
    path: PathLike, dtype: np.dtype[Any] | None = None, num_classes: int | None = None, seed: int = 0
) -> tuple[Node, dict[str, Array]]:
    """The spec of a file and all arrays that it needs, cast to `dtype` where one is given.

    Where `num_classes` is given and is not the file's, spec and arrays have a new head, drawn from `seed`.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or `cast` refuses.
        SpecError: the file's model has no head to replace, or `num_classes` or `seed` is invalid.
    """
    spec, arrays = read_weights(path)
    arrays = match(spec, arrays, source=str(path))[0]
    if num_classes is not None:
        spec, arrays = _with_new_head(spec, arrays, num_classes, seed)
    return spec, arrays if dtype is None else cast(arrays, dict.fromkeys(arrays, dtype), source=str(path))


def _with_new_head(spec: Node, arrays: dict[str, Array], num_classes: int, seed: int) -> tuple[Node, dict[str, Array]]:
    if isinstance(num_classes, bool) or not isinstance(num_classes, (int, np.integer)) or num_classes < 1:
        raise SpecError(
            f"num_classes: expected an integer of at least 1, got {num_classes!r}; leave it out to keep the file's head"
        )
    changed = with_num_classes(spec, num_classes)
    if changed == spec:
        return spec, arrays
    layer = f"{head(spec)}."
    drawn = draw(tuple(p for p in changed.parameters() if p.name.startswith(layer)), seed)
    return changed, {**arrays, **{name: array.astype(arrays[name].dtype) for name, array in drawn.items()}}


def _advice(own: Node, saved: Node, classes: tuple[int, int] | None) -> str:
    if classes is not None:
        theirs, ours = classes
        return (
            f"the file has {theirs} classes and the model {ours}: keep the file's backbone under a new head by "
            f"load(path, num_classes={ours}), or the model's head by load_weights(model, path, skip=({head(own)!r},))"
        )
    if isinstance(own, Model) and isinstance(saved, Model) and own.name != saved.name:
        return f"the file holds {saved.name!r} and the model is {own.name!r}: load(path) builds the file's own"
    return ""


def numpy_dtype(dtype: Any, known: Mapping[Any, np.dtype[Any]]) -> np.dtype[Any] | None:
    """The NumPy dtype of a framework's `dtype`, None for None.

    Raises:
        WeightsError: `dtype` is not one of those that weights files hold.
    """
    if dtype is None:
        return None
    if dtype not in known:
        raise WeightsError(f"dtype: expected one of {', '.join(str(one) for one in known)}, got {dtype}")
    return known[dtype]


def _rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    """The array in another dtype, each value rounded once."""
    if array.dtype == np.float64 and dtype == ml_dtypes.bfloat16:
        array = _round_to_odd(array)
    return array.astype(dtype, copy=False)


def _round_to_odd(array: Array) -> Array:
    """float64 in float32, inexact values towards 0 and then to an odd last bit: rounded again, that is as if once.

    The cast of ml_dtypes from float64 to bfloat16 goes by way of float32.
    """
    near = array.astype(np.float32)
    bits = near.view(np.uint32).copy()
    wide = near.astype(np.float64)
    bits -= np.abs(wide) > np.abs(array)
    bits |= wide != array
    return bits.view(np.float32)


def cast(arrays: Mapping[str, Array], dtypes: Dtypes, *, source: str) -> dict[str, Array]:
    """`arrays` rounded to `dtypes`, those that it does not name as they are.

    It is done here because PyTorch rounds float64 to half precision twice, by way of float32.

    Raises:
        WeightsError: a value is too large for its dtype.
    """
    with np.errstate(over="ignore"):
        found = {name: _rounded(array, dtypes.get(name, array.dtype)) for name, array in arrays.items()}
    if bad := [name for name, array in found.items() if not np.isfinite(array).all()]:
        raise WeightsError(f"{source}: too large for {found[bad[0]].dtype}: {listed(bad)}; take a wider dtype")
    return found
