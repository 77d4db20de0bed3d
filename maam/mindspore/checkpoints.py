"""MindSpore checkpoints: parameters by MindSpore's names, perhaps with an optimizer's state."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mindspore import load_checkpoint, save_checkpoint
from mindspore.train.checkpoint_pb2 import Checkpoint

from maam.errors import WeightsError
from maam.files import replacing
from maam.mindspore.arrays import from_numpy, mindspore_name, to_numpy
from maam.mindspore.weights import FLOATING
from maam.names import listed
from maam.spec import Node

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
