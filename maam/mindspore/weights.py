"""Weights files in and out of MindSpore cells."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import dtype as mstype
from mindspore import load_checkpoint, nn, save_checkpoint
from mindspore.train.checkpoint_pb2 import Checkpoint

from maam import spec as specs
from maam._io import replacing
from maam._messages import listed
from maam.backend.integrity import check_integrity, check_methods
from maam.errors import SpecError, WeightsError
from maam.mindspore.arrays import (
    DTYPES,
    from_numpy,
    mindspore_name,
    parameters_by_name,
    read_arrays,
    to_numpy,
    unwrap,
    write_arrays,
)
from maam.mindspore.cells import Container, instantiate
from maam.spec import Node
from maam.spec.presets import resolve
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import DTYPES as FILE_DTYPES


def build(spec: specs.Node | str, *, seed: int | None = None, dtype: Any = mstype.float32, **options: Any) -> nn.Cell:
    """The cell of a spec, in MindSpore's initial (inference) state, with the spec at `.spec`.

    Args:
        spec: a spec, or the name of a preset.
        seed: draw the initial weights by NumPy, bit-identical in every framework; None: by MindSpore's
            generator, from the same distributions.
        dtype: the dtype of the parameters, a floating one.
        options: of the preset (`num_classes`, ...).

    Raises:
        SpecError: `spec` is neither, a node is of a kind that this framework does not have, or the seed, the dtype or
            an option is invalid.
        PresetError: there is no preset of that name, or it has no such option.
    """
    node = resolve(spec, **options)
    if dtype not in DTYPES or DTYPES[dtype] not in FILE_DTYPES.values():
        raise SpecError(f"dtype: expected a floating dtype such as mindspore.float16, got {dtype!r}")
    cell = instantiate(node, dtype=dtype)
    cell.spec = node
    cell.set_train(False)  # else graph mode keeps a graph compiled in inference state after set_train()
    if isinstance(cell, Container):
        cell.rule = specs.input_rule(node)
    if seed is not None:
        write_arrays(cell, specs.draw(node.parameters(), seed))
    return cell


FLOATING = {ours: array for ours, array in DTYPES.items() if array in FILE_DTYPES.values()}
"""The dtypes that weights files hold."""


def save_weights(model: nn.Cell, path: PathLike) -> None:
    """Write the parameters and running statistics of a model or a single layer, with its spec, to one file.

    Raises:
        WeightsError: the model was not built by maam, or has a layer that its spec does not say, or arrays that do not
            fit it or are not finite; or the file cannot be written.
    """
    check_model(model, nn.Cell, "mindspore.nn.Cell", "save_weights")
    own = unwrap(model)
    check_integrity(own, "save_weights", WeightsError)
    check_methods(own, "save_weights", WeightsError)
    save_model(path, own, read_arrays(own))


def load_weights(model: nn.Cell, path: PathLike, strict: bool = True, skip: Sequence[str] = ()) -> Mismatch:
    """Copy a file's arrays into a model, cast to its dtypes; returns the names that stand on one side only.

    Args:
        model: a model or layer of maam.
        path: a weights file.
        strict: whether every name must stand on both sides, and the file's spec compute the same as the model's.
        skip: names of layers, such as "classifier", that stay as they are: what the file has for them is left out.

    Raises:
        WeightsError: the file is broken, or an array has the wrong shape, or is not finite in the model's dtype; with
            `strict`, also where a name is missing or unexpected, the file's spec computes something else, or a layer
            was replaced that is not in `skip`; or `skip` names no layer, or `model` is none of this framework.
    """
    check_model(model, nn.Cell, "mindspore.nn.Cell", "load_weights")
    own = unwrap(model)
    if strict:
        check_integrity(own, "load_weights", WeightsError, skip)
    return load_into(own, path, strict, skip, _slots, write_arrays)


def load(path: PathLike, dtype: Any = None, *, num_classes: int | None = None, seed: int = 0) -> nn.Cell:
    """The model or layer that a file describes, in inference state.

    Args:
        path: a weights file.
        dtype: the dtype of all arrays; None keeps the file's.
        num_classes: where it is not the file's, the last layer is replaced by one of so many logits, for training
            on other classes; all others keep their weights.
        seed: draws that new layer, bit-identical in every framework.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, or a value is too large for `dtype`.
        SpecError: the file's model has no last layer that gives logits, or `num_classes` or `seed` is invalid.
    """
    spec, arrays = read_whole(path, numpy_dtype(dtype, FLOATING), num_classes, seed)
    model = build(spec)
    kept = {array: ours for ours, array in FLOATING.items()}
    for name, parameter in parameters_by_name(model).items():
        parameter.set_dtype(kept[arrays[name].dtype])
    write_arrays(model, arrays)
    return model


def _slots(model: nn.Cell) -> dict[str, Slot]:
    own = parameters_by_name(model)
    return {name: Slot(tuple(array.shape), FLOATING.get(array.dtype)) for name, array in own.items()}


Array = np.ndarray[Any, Any]
_DTYPES = {str(ours): dtype for ours, dtype in FLOATING.items()}
_CHECKSUM = b"crc_num"
_CHECKSUM_LENGTH = len(_CHECKSUM) + 10


def read_checkpoint(path: Path, spec: Node | None) -> tuple[dict[str, Array], Node | None]:
    """The arrays of a checkpoint by canonical name, which follows from the roles in `spec`; the file carries none.

    An optimizer's moments and counters, and values that were appended, are left out. Without a spec nothing has a
    canonical name, and nothing is read.

    Raises:
        WeightsError: the file is cut short or no checkpoint, or an array is not of float16, bfloat16, float32 or
            float64.
    """
    if spec is None:
        return {}, None
    names = {mindspore_name(p.name, p.role): p.name for p in spec.parameters()}
    wanted = _check(path, names)
    if not wanted:
        return {}, None
    try:
        with _silence():
            found = load_checkpoint(str(path), choice_func=wanted.__contains__, crc_check=True)
    except Exception:  # of many kinds
        raise _damaged(path) from None
    return {names.get(name, name): to_numpy(parameter) for name, parameter in found.items()}, None


def write_checkpoint(path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write the arrays under MindSpore's names, in the order of the spec.

    Raises:
        OSError: the file cannot be written; a file that was there stays.
    """
    records = [{"name": mindspore_name(p.name, p.role), "data": from_numpy(arrays[p.name])} for p in spec.parameters()]
    with replacing(path) as temporary, _silence():
        try:
            save_checkpoint(records, str(temporary))
        finally:
            temporary.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore leaves it where it fails


def _check(path: Path, names: Collection[str]) -> set[str]:
    """The names of a model's arrays in a checkpoint, each of a known dtype and whole.

    MindSpore does not look: where a record is shorter than its shape says, it reads on in memory.
    """
    sizes: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for record in _records(path):
        name, tensor = record.tag, record.tensor
        if _is_training_state(name, names):
            continue
        if tensor.tensor_type not in _DTYPES:
            known = ", ".join(dtype.name for dtype in FLOATING.values())
            raise WeightsError(
                f"{path}: {listed([name])} has dtype {tensor.tensor_type[:60]!r}; expected one of {known}"
            )
        if min(tensor.dims, default=1) < 1:
            raise _damaged(path)
        wanted[name] = math.prod(tensor.dims) * _DTYPES[tensor.tensor_type].itemsize
        sizes[name] = sizes.get(name, 0) + len(tensor.tensor_content)  # a large array comes in several records
    if sizes != wanted:
        raise _damaged(path)
    return set(wanted)


def _records(path: Path) -> Any:
    try:
        content = path.read_bytes()
        if content[-_CHECKSUM_LENGTH:].startswith(_CHECKSUM):
            content = content[:-_CHECKSUM_LENGTH]
        return Checkpoint.FromString(content).value
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # protobuf's own
        raise _damaged(path) from None


def _is_training_state(name: str, names: Collection[str]) -> bool:
    """Whether an entry is a counter (`global_step`) or an optimizer's slot (`moment1.fc.weight`), no parameter."""
    _, dot, rest = name.partition(".")
    return name not in names and (not dot or rest in names)


def _damaged(path: Path) -> WeightsError:
    return WeightsError(f"{path}: no MindSpore checkpoint, damaged or cut short; save it again")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep MindSpore's log quiet: it reports as critical what is raised anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
