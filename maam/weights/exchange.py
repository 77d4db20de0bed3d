"""What loading and saving have in common in all frameworks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from maam.errors import WeightsError
from maam.names import listed
from maam.spec import Node
from maam.weights.file import read_weights
from maam.weights.matching import Mismatch, check_same_function, match

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
Dtypes = Mapping[str, np.dtype[Any]]


def spec_of(model: object) -> Node:
    """The spec that a model or layer carries.

    Raises:
        WeightsError: it was not built by maam.
    """
    spec = getattr(model, "spec", None)
    if not isinstance(spec, Node):
        raise WeightsError(f"{type(model).__name__} has no .spec; give a model or layer that maam built or loaded")
    return spec


def load_into(
    model: object,
    path: PathLike,
    strict: bool,
    dtypes: Callable[[Any], Dtypes],
    write: Callable[[Any, Mapping[str, Array]], None],
) -> Mismatch:
    """Read `path`, hold it against `model.spec`, and `write(model, arrays)` what fits, cast to `dtypes(model)`.

    Raises:
        WeightsError: as `read_weights`, `match`, `cast` and, with `strict`, `check_same_function` do; the model
            is then as it was.
    """
    spec = spec_of(model)
    saved, arrays = read_weights(path)
    matched, mismatch = match(spec, arrays, source=str(path), strict=strict)
    if strict:
        check_same_function(spec, saved, source=str(path))
    write(model, cast(matched, dtypes(model), source=str(path)))
    return mismatch


def read_whole(path: PathLike, dtype: np.dtype[Any] | None = None) -> tuple[Node, dict[str, Array]]:
    """The spec of a file and all arrays that it needs, cast to `dtype` where one is given.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or `cast` refuses.
    """
    spec, arrays = read_weights(path)
    matched = match(spec, arrays, source=str(path))[0]
    return spec, matched if dtype is None else cast(matched, dict.fromkeys(matched, dtype), source=str(path))


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


def cast(arrays: Mapping[str, Array], dtypes: Dtypes, *, source: str) -> dict[str, Array]:
    """`arrays` rounded to `dtypes`, those that it does not name as they are.

    It is done here, by NumPy, because PyTorch rounds float64 to float16 twice, by way of float32.

    Raises:
        WeightsError: a value is too large for its dtype.
    """
    with np.errstate(over="ignore"):
        found = {name: array.astype(dtypes.get(name, array.dtype), copy=False) for name, array in arrays.items()}
    if bad := [name for name, array in found.items() if not np.isfinite(array).all()]:
        raise WeightsError(f"{source}: too large for {found[bad[0]].dtype}: {listed(bad)}; load them in a wider dtype")
    return found
