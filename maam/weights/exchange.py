"""Loading and saving of models: the part that all frameworks share."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from maam._messages import is_count, listed
from maam.errors import SpecError, WeightsError
from maam.spec import Model, Node, draw, head, with_num_classes
from maam.spec.presets import resolve
from maam.weights.file import check_path, read_set, write_weights
from maam.weights.match import Mismatch, check_same_function, match
from maam.weights.sets import Selection

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
Dtypes = Mapping[str, np.dtype[Any]]


class Slot(NamedTuple):
    """Shape and dtype of an array of a model; the dtype is None if weights files do not support it."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None


Slots = Mapping[str, Slot]
Reader = Callable[[PathLike, Node | None, Selection], tuple[dict[str, Array], Node | None]]
"""A function that returns the arrays of a file by canonical name, and the spec in the file, or None."""


def spec_of(model: object) -> Node:
    """Return the spec of a model or layer.

    Raises:
        WeightsError: the model was not built by maam.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, Node):
        raise WeightsError(f"{type(model).__name__} has no .spec; pass a model or layer that maam built or loaded")
    return spec


def check_model(model: object, expected: type, name: str, act: str) -> None:
    """Check that a model has the framework's class.

    Args:
        model: any object.
        expected: the framework's class of models.
        name: its name, for the message.
        act: the function that was called, for the message.

    Raises:
        WeightsError: `model` has another class.
    """
    if not isinstance(model, expected):
        raise WeightsError(
            f"{act}: expected a {name} that maam built or loaded, got an object of type {type(model).__name__}; to "
            "load a file use load(path), to save arrays use maam.weights.write_weights(path, spec, arrays)"
        )


def save_model(path: PathLike, model: object, read: Callable[[Any], Mapping[str, Array]]) -> None:
    """Write a model's spec and arrays to a weights file; `read` returns the arrays of a model that has a spec.

    Raises:
        WeightsError: the model was not built by maam; its arrays do not fit its spec or are not finite; or the file
            cannot be written. An existing file is then unchanged.
    """
    spec = spec_of(model)
    write_weights(path, spec, match(spec, read(model), source=f"save_weights: {type(model).__name__}")[0])


def load_into(
    model: object,
    path: PathLike,
    strict: bool,
    skip: Sequence[str],
    slots: Callable[[Any], Slots],
    write: Callable[[Any, Mapping[str, Array]], None],
    *,
    selection: Selection = Selection(),  # noqa: B008
    read: Reader = read_set,
) -> Mismatch:
    """Copy the arrays of a file into a model.

    Args:
        model: a model or layer with a `spec`.
        path: a weights file, or another file that `read` reads.
        strict: whether all names must match and the file's spec, if it has one, must compute the same as the model's.
        skip: names of layers that keep their weights.
        slots: returns shape and dtype of each of the model's arrays.
        write: copies arrays of these shapes and dtypes into the model.
        selection: the set of weights, and the prefix of its names.
        read: reads the file.

    Returns:
        The names that are only in the model or only in the file.

    Raises:
        WeightsError: the file is broken or does not fit the model, only the file or only the model is fused for
            deployment, or a layer of the model was replaced. The model is then unchanged.
    """
    spec = spec_of(model)
    check_path(path)
    arrays, saved = read(path, spec, selection)
    _check_form(spec, arrays, str(path))
    advice = functools.partial(_advice, spec, saved)
    matched, mismatch = match(spec, arrays, source=str(path), strict=strict, skip=skip, advice=advice)
    if strict and saved is not None:
        check_same_function(spec, saved, source=str(path), skip=skip)
    own = slots(model)
    _check_slots(own, matched, str(path))
    write(model, cast(matched, {name: slot.dtype for name, slot in own.items() if slot.dtype}, source=str(path)))
    return mismatch


def _check_form(spec: Node, arrays: Mapping[str, Array], path: str) -> None:
    """Check that file and model are both fused or both not fused.

    A fused model has neither batch norm nor learned branch weights. Its other names, apart from biases, are those of
    the original model, except that joined branches have other names.
    """
    own, given = {parameter.name for parameter in spec.parameters()}, set(arrays)
    if _is_fused(own, given):
        raise WeightsError(
            f"{path}: the model is fused for deployment, and the file is not: load the file first, then call "
            "reparameterize(), or load a file written by `maam fuse`"
        )
    if _is_fused(given, own):
        raise WeightsError(
            f"{path}: the file is fused for deployment, and the model is not: load(path) builds the fused model"
        )


def _is_fused(names: set[str], others: set[str]) -> bool:
    unfused = [_removed_by_fusion(each) for each in (names, others)]
    if unfused[0] or not unfused[1]:
        return False
    return {_outside_branches(name) for name in names if not name.endswith(".bias")} <= set(
        map(_outside_branches, others)
    )


def _removed_by_fusion(names: set[str]) -> set[str]:
    """Return the names of running means and learned branch weights; GCT's `alpha`, beside a `gamma`, remains."""
    scalars = {name for name in names if name.rpartition(".")[2] == "alpha"}
    weights = {name for name in scalars if f"{name.removesuffix('alpha')}gamma" not in names}
    return weights | {name for name in names if name.endswith(".running_mean")}


def _outside_branches(name: str) -> tuple[str, ...]:
    """Return the first and the last two parts of a name, such as "stage1", "conv1" and "weight"."""
    first, *inner = name.split(".")
    return (first, *inner[-2:])


def _check_slots(own: Slots, arrays: Mapping[str, Array], path: str) -> None:
    for name, array in arrays.items():
        if name not in own or own[name].shape != array.shape:
            there = f"has the shape {own[name].shape}" if name in own else "is absent"
            raise WeightsError(
                f"{path}: {name} {array.shape} {there} in the model, because its layer was replaced; skip the layer "
                f"(skip=({name.rpartition('.')[0]!r},)), or build the model with it: load(path, num_classes=...)"
            )


def read_whole(
    path: PathLike,
    dtype: np.dtype[Any] | None = None,
    num_classes: int | None = None,
    seed: int = 0,
    *,
    spec: Node | str | None = None,
    selection: Selection = Selection(),  # noqa: B008
    read: Reader = read_set,
    keep_half: bool = True,
) -> tuple[Node, dict[str, Array]]:
    """Return the spec of a file and all its arrays.

    Args:
        path: a weights file, or another file that `read` reads.
        dtype: the dtype of the returned arrays; None keeps the file's.
        num_classes: the number of classes. If the file has another number, its last layer is replaced by a new one.
        seed: the seed for the weights of the new layer.
        spec: the spec of the model or the name of a preset, for a file without a spec.
        selection: the set of weights, and the prefix of its names.
        read: reads the file.
        keep_half: whether arrays in half precision stay so without `dtype`. If not, they become float32, because layers
            in half precision refuse inputs in float32.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, there is no spec or `spec` computes something
            else, or a value is too large for `dtype`.
        SpecError: the file's model has no last layer to replace, or `num_classes` or `seed` is invalid.
        PresetError: no preset has the name `spec`.
    """
    check_path(path)
    given = None if spec is None else resolve(spec)
    arrays, saved = read(path, given, selection)
    node = agreed_spec(path, saved, given, "pass spec=, or add it with: maam convert SRC DST --spec PRESET")
    arrays = match(node, arrays, source=str(path))[0]
    if num_classes is not None:
        node, arrays = _with_new_head(node, arrays, num_classes, seed)
    wanted = {} if keep_half else {name: np.dtype(np.float32) for name, a in arrays.items() if a.dtype.itemsize == 2}
    if dtype is not None:
        wanted = dict.fromkeys(arrays, dtype)
    return node, cast(arrays, wanted, source=str(path))


def agreed_spec(source: PathLike, saved: Node | None, given: Node | None, advice: str) -> Node:
    """Return the spec in a file, or the given one if the file has none; `advice` ends the message if both are absent.

    Raises:
        WeightsError: there is no spec, or the two compute different functions.
    """
    if saved is not None and given is not None:
        check_same_function(given, saved, source=str(source), advice="omit spec (--spec) to use the spec in the file")
    agreed = saved or given
    if agreed is None:
        raise WeightsError(f"{source}: contains no spec; {advice}")
    return agreed


def _with_new_head(spec: Node, arrays: dict[str, Array], num_classes: int, seed: int) -> tuple[Node, dict[str, Array]]:
    if not is_count(num_classes):
        raise SpecError(
            f"num_classes: expected an integer of at least 1, got {num_classes!r}; "
            "omit it to keep the file's last layer"
        )
    changed = with_num_classes(spec, num_classes)
    if changed == spec:
        return spec, arrays
    layer = f"{head(spec)}."
    drawn = draw(tuple(p for p in changed.parameters() if p.name.startswith(layer)), seed)
    return changed, {**arrays, **{name: array.astype(arrays[name].dtype) for name, array in drawn.items()}}


def _advice(own: Node, saved: Node | None, classes: tuple[int, int] | None) -> str:
    if classes is not None:
        theirs, ours = classes
        return (
            f"the file has {theirs} classes and the model {ours}: use load(path, num_classes={ours}) to replace the "
            f"file's last layer, or load_weights(model, path, skip=({head(own)!r},)) to keep the model's"
        )
    if isinstance(own, Model) and isinstance(saved, Model) and own.name != saved.name:
        return f"the file holds {saved.name!r} and the model is {own.name!r}: load(path) builds {saved.name!r}"
    return ""


def numpy_dtype(dtype: Any, known: Mapping[Any, np.dtype[Any]]) -> np.dtype[Any] | None:
    """Return the NumPy dtype of a framework's dtype, and None for None.

    Raises:
        WeightsError: weights files do not support `dtype`.
    """
    if dtype is None:
        return None
    if dtype not in known:
        raise WeightsError(f"dtype: expected one of {', '.join(str(one) for one in known)}, got {dtype}")
    return known[dtype]


def _rounded(array: Array, dtype: np.dtype[Any]) -> Array:
    """Return the array in another dtype, each value rounded once."""
    if array.dtype == np.float64 and dtype == ml_dtypes.bfloat16:
        array = _round_to_odd(array)
    return array.astype(dtype, copy=False)


def _round_to_odd(array: Array) -> Array:
    """Return float64 values as float32, rounded to odd: towards zero, and the last bit set if inexact.

    ml_dtypes casts float64 to bfloat16 through float32, which rounds twice. After rounding to odd, the second rounding
    gives the same result as a single one.
    """
    near = array.astype(np.float32)
    bits = near.view(np.uint32).copy()
    wide = near.astype(np.float64)
    bits -= np.abs(wide) > np.abs(array)
    bits |= wide != array
    return bits.view(np.float32)


def cast(arrays: Mapping[str, Array], dtypes: Dtypes, *, source: str) -> dict[str, Array]:
    """Return the arrays rounded to `dtypes`; arrays that `dtypes` does not name keep their dtype.

    Every backend uses this function, because PyTorch rounds float64 to half precision twice, through float32.

    Raises:
        WeightsError: a value is too large for its dtype.
    """
    with np.errstate(over="ignore"):
        found = {name: _rounded(array, dtypes.get(name, array.dtype)) for name, array in arrays.items()}
    if bad := [name for name, array in found.items() if not np.isfinite(array).all()]:
        raise WeightsError(f"{source}: too large for {found[bad[0]].dtype}: {listed(bad)}; use a wider dtype")
    return found
