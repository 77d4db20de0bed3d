"""Models from specs, and weights in and out of MindSpore cells: maam's files and MindSpore's own checkpoints."""

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
from maam._io import open_regular, replacing
from maam._messages import listed
from maam.backend.convert import read_file
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
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import DTYPES as FILE_DTYPES
from maam.weights.pretrained import find_start
from maam.weights.sets import Selection, choose, find_sets

Array = np.ndarray[Any, Any]
FLOATING = {native: array for native, array in DTYPES.items() if array in FILE_DTYPES.values()}
"""The dtypes that weights files support."""
_DTYPES_BY_NAME = {str(native): array for native, array in FLOATING.items()}
_CHECKSUM = b"crc_num"
_CHECKSUM_LENGTH = len(_CHECKSUM) + 10


def build(
    spec: specs.Node | str,
    *,
    seed: int | None = None,
    pretrained: bool = False,
    dtype: Any = mstype.float32,
    **options: Any,
) -> nn.Cell:
    """Build the cell of a spec or preset, in inference mode.

    Args:
        spec: a spec, or the name of a preset.
        seed: the seed of the initial weights, which are then bit-identical in every framework. None: MindSpore's
            generator draws them from the same distributions.
        pretrained: whether to load the weights that the package has for the preset, which were trained with its default
            options. With another `num_classes` the last layer is new, drawn from `seed` (0 by default), and the other
            layers keep their weights.
        dtype: the floating-point dtype of the parameters.
        options: options of the preset, such as `num_classes`.

    Returns:
        The cell; its attribute `spec` is the spec.

    Raises:
        SpecError: `spec` is neither a spec nor a name, MindSpore has no primitive for one of its nodes, or the seed,
            the dtype or an option is invalid.
        PresetError: no preset has that name, or it has no such option.
        WeightsError: `pretrained` is True, and the package has no weights for the preset or for these options.

    Example:
        >>> from mindspore import ops
        >>> import maam
        >>> model = maam.mindspore.build("maam_digits", seed=0, num_classes=4)
        >>> model(ops.ones((2, 1, 8, 8))).shape
        (2, 4)
        >>> model.spec == maam.preset("maam_digits", num_classes=4)
        True
    """
    node, arrays = find_start(spec, options, seed, pretrained)
    if dtype not in FLOATING:
        raise SpecError(f"dtype: expected a floating dtype such as mindspore.float16, got {dtype!r}")
    cell = instantiate(node, dtype=dtype)
    cell.spec = node
    cell.set_train(False)  # or graph mode would keep a graph compiled in inference mode after set_train()
    if isinstance(cell, Container):
        cell.rule = specs.input_rule(node)
    if arrays is None and seed is not None:
        arrays = specs.draw(node.parameters(), seed)
    if arrays is not None:
        write_arrays(cell, arrays)
    return cell


def save_weights(model: nn.Cell, path: PathLike) -> None:
    """Save the parameters, running statistics and spec of a cell to a weights file.

    Args:
        model: a model or layer of maam. It may be wrapped for mixed precision.
        path: the file to write; an existing file is replaced atomically.

    Raises:
        WeightsError: the cell was not built by maam, has a layer that its spec does not describe, or has arrays that do
            not fit the spec or are not finite; or the file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.safetensors")
        ...     maam.mindspore.save_weights(maam.mindspore.build("maam_digits"), path)
        ...     maam.reference.load(path).spec == maam.preset("maam_digits")
        True
    """
    check_model(model, nn.Cell, "mindspore.nn.Cell", "save_weights")
    own = unwrap(model)
    check_integrity(own, "save_weights", WeightsError)
    check_methods(own, "save_weights", WeightsError)
    save_model(path, own, read_arrays)


def load_weights(
    model: nn.Cell,
    path: PathLike,
    strict: bool = True,
    skip: Sequence[str] = (),
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> Mismatch:
    """Copy the arrays of a file into a cell, cast to the cell's dtypes.

    The cell is unchanged if an error is raised.

    Args:
        model: a model or layer of maam.
        path: a weights file, or any file that `maam.convert` reads.
        strict: whether all names must match, and the file's spec, if it has one, must compute the same as the
            cell's.
        skip: names of layers that keep their weights, such as ("classifier",).
        key: the key of the set of weights, for a file with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.

    Returns:
        The names that only the cell has (`missing`) and that only the file has (`unexpected`).

    Raises:
        WeightsError: the file is broken or of another model, an array has the wrong shape or is not finite in the
            cell's dtype, or a layer of the cell was replaced and is not in `skip`.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.safetensors")
        ...     maam.reference.save_weights(maam.reference.build("maam_digits", seed=0), path)
        ...     model = maam.mindspore.build("maam_digits", num_classes=4)
        ...     maam.mindspore.load_weights(model, path, skip=("classifier.fc2",))
        Mismatch(missing=(), unexpected=())
    """
    check_model(model, nn.Cell, "mindspore.nn.Cell", "load_weights")
    own = unwrap(model)
    if strict:
        check_integrity(own, "load_weights", WeightsError, skip)
    return load_into(own, path, strict, skip, _slots, write_arrays, selection=Selection(key, prefix), read=read_file)


def _slots(model: nn.Cell) -> dict[str, Slot]:
    own = parameters_by_name(model)
    return {name: Slot(tuple(array.shape), FLOATING.get(array.dtype)) for name, array in own.items()}


def load(
    path: PathLike,
    dtype: Any = None,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    spec: Node | str | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> nn.Cell:
    """Build the model or layer that a weights file describes, with its weights, in inference mode.

    Args:
        path: a weights file, or any file that `maam.convert` reads.
        dtype: the dtype of all arrays; None keeps those of the file, but casts float16 and bfloat16 to float32.
        num_classes: the number of classes. If the file has another number, the last layer is replaced by a new one,
            and the others keep their weights.
        seed: the seed for the weights of the new layer, which are bit-identical in every framework.
        spec: a spec or the name of a preset, for a file that contains no spec, such as a checkpoint.
        key: the key of the set of weights, for a file with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.

    Returns:
        The cell; its attribute `spec` is the spec of the file, with the new number of classes.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, the file has no spec and `spec` is None, the
            file's spec and `spec` compute different functions, there is no set `key`, or a value is too large for
            `dtype`.
        SpecError: the file's model is not a classifier, or `num_classes` or `seed` is invalid.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> from mindspore import ops
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.safetensors")
        ...     maam.reference.save_weights(maam.reference.build("maam_digits", seed=0), path)
        ...     model = maam.mindspore.load(path, num_classes=3)
        >>> model(ops.ones((2, 1, 8, 8))).shape
        (2, 3)
    """
    node, arrays = read_whole(
        path,
        numpy_dtype(dtype, FLOATING),
        num_classes,
        seed,
        spec=spec,
        selection=Selection(key, prefix),
        read=read_file,
        keep_half=False,
    )
    model = build(node)
    native = {array: dtype for dtype, array in FLOATING.items()}
    for name, parameter in parameters_by_name(model).items():
        parameter.set_dtype(native[arrays[name].dtype])
    write_arrays(model, arrays)
    return model


# --- MindSpore's own checkpoints


def read_checkpoint(
    path: Path, spec: Node | None = None, selection: Selection | None = None
) -> tuple[dict[str, Array], Node | None]:
    """Return the arrays of a checkpoint by canonical name, and None, because checkpoints contain no spec.

    The canonical names are derived from the roles of the parameters in `spec`. If `spec` is None, the file is not read
    and there are no arrays. An optimizer's moments and counters, and appended values, are omitted.

    Args:
        path: the file.
        spec: the spec of the model.
        selection: the set of weights, such as MindCV's moving average "ema", and the prefix of its names; None:
            selected automatically.

    Raises:
        WeightsError: the file is truncated or not a checkpoint, or an array is not of a floating-point dtype.
    """
    if spec is None:
        return {}, None
    names = {mindspore_name(p.name, p.role): p.name for p in spec.parameters()}
    found = read_parameters(path, names, selection)
    return {names.get(name, name): to_numpy(parameter) for name, parameter in found.items()}, None


def read_parameters(path: Path, names: Collection[str], selection: Selection | None = None) -> dict[str, Any]:
    """Return the parameters of one set of weights in a checkpoint by the names of a cell.

    Args:
        path: the file.
        names: the cell's names.
        selection: the set of weights and the prefix of its names; None: selected automatically.

    Raises:
        WeightsError: the file is broken, or has no such set.
    """
    records = _records(path)
    tags = {record.tag: record.tag for record in records}
    sets = {
        key: {name: tag for name, tag in tagged.items() if not _is_training_state(name, names, tagged)}
        for key, tagged in find_sets(tags, lambda tag: True, names).items()
    }
    chosen = choose(path, sets, names, selection)
    wanted = set(chosen.values())
    _check(path, records, wanted)
    if not wanted:
        return {}
    try:
        with _silence():
            found = load_checkpoint(str(path), choice_func=wanted.__contains__, crc_check=True)
    except Exception:  # MindSpore raises many kinds
        raise _damaged(path) from None
    return {name: found[tag] for name, tag in chosen.items()}


def write_checkpoint(path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write arrays under MindSpore's names, in the order of the spec.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    write_records(path, {mindspore_name(p.name, p.role): arrays[p.name] for p in spec.parameters()})


def write_records(path: Path, arrays: Mapping[str, Array], note: Mapping[str, str] | None = None) -> None:
    """Write arrays under MindSpore's names, and texts.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    records = [{"name": name, "data": from_numpy(array)} for name, array in arrays.items()]
    with replacing(path) as temporary, _silence():
        try:
            save_checkpoint(records, str(temporary), append_dict=dict(note or {}) or None)
        finally:
            temporary.with_suffix(".tmp").unlink(missing_ok=True)  # MindSpore leaves it behind on failure


def _check(path: Path, records: Any, tags: Collection[str]) -> None:
    """Check the dtypes and sizes of the records with these tags.

    MindSpore has no such check: it reads beyond a record that is shorter than its shape says.
    """
    sizes: dict[str, int] = {}
    wanted: dict[str, int] = {}
    for record in records:
        name, tensor = record.tag, record.tensor
        if name not in tags:
            continue
        if tensor.tensor_type not in _DTYPES_BY_NAME:
            known = ", ".join(dtype.name for dtype in FLOATING.values())
            raise WeightsError(
                f"{path}: {listed([name])} has dtype {tensor.tensor_type[:60]!r}; expected one of {known}"
            )
        if min(tensor.dims, default=1) < 1:
            raise _damaged(path)
        wanted[name] = math.prod(tensor.dims) * _DTYPES_BY_NAME[tensor.tensor_type].itemsize
        sizes[name] = sizes.get(name, 0) + len(tensor.tensor_content)  # a large array comes in several records
    if sizes != wanted:
        raise _damaged(path)


def _records(path: Path) -> Any:
    try:
        with open_regular(path) as file:
            content = file.read()
        if content[-_CHECKSUM_LENGTH:].startswith(_CHECKSUM):
            content = content[:-_CHECKSUM_LENGTH]
        return Checkpoint.FromString(content).value
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception:  # protobuf's own
        raise _damaged(path) from None


def _is_training_state(name: str, names: Collection[str], others: Collection[str]) -> bool:
    """Return whether an entry is a counter (`global_step`) or an optimizer's moment (`moment1.fc.weight`).

    Args:
        name: the name of the entry.
        names: the names of the model.
        others: all names in the file, which can have a prefix: `net.fc.weight` and `moment1.net.fc.weight`.
    """
    _, dot, rest = name.partition(".")
    return name not in names and (not dot or rest in others)


def _damaged(path: Path) -> WeightsError:
    return WeightsError(f"{path}: not a MindSpore checkpoint, damaged or truncated; save it again")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Turn MindSpore's log off: it reports errors that are raised anyway."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(level)
