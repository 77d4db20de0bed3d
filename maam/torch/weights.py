"""Models from specs, and weights in and out of PyTorch modules: maam's files and PyTorch's own checkpoints."""

from __future__ import annotations

import io
import os
import re
import warnings
import zipfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import torch
from torch import nn

from maam import spec as specs
from maam._io import open_regular, write_bytes
from maam._messages import listed
from maam.backend.convert import read_file
from maam.backend.integrity import check_integrity, check_methods
from maam.errors import SpecError, WeightsError
from maam.spec import Node, parse_json
from maam.torch.arrays import dtype_name, from_numpy, read_arrays, tensors, to_numpy, unwrap, write_arrays
from maam.torch.modules import Container, instantiate
from maam.weights import Mismatch
from maam.weights.exchange import PathLike, Slot, check_model, load_into, numpy_dtype, read_whole, save_model
from maam.weights.file import read_safetensors
from maam.weights.match import is_batch_counter, names_of
from maam.weights.pretrained import find_start
from maam.weights.sets import Selection, choose, find_sets

Array = np.ndarray[Any, Any]
FLOATING = {
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
    torch.float32: np.dtype(np.float32),
    torch.float64: np.dtype(np.float64),
}
"""The dtypes that weights files support."""
_MAX_EXPANSION = 8
"""The largest ratio of the content of a zip file to its size; weights that a tool has compressed stay below 2."""
_EXPECTED = "expected a state_dict, or a dict that contains one as 'state_dict'; save only model.state_dict()"


def build(
    spec: specs.Node | str,
    *,
    seed: int | None = None,
    pretrained: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **options: Any,
) -> nn.Module:
    """Build the module of a spec or preset, in train mode.

    Args:
        spec: a spec, or the name of a preset.
        seed: the seed of the initial weights, which are then bit-identical in every framework. None: PyTorch's
            generator draws them from the same distributions.
        pretrained: whether to load the weights that the package has for the preset, which were trained with its default
            options. With another `num_classes` the last layer is new, drawn from `seed` (0 by default), and the other
            layers keep their weights.
        device: the device of the parameters.
        dtype: the floating-point dtype of the parameters; None uses PyTorch's default dtype.
        options: options of the preset, such as `num_classes`.

    Returns:
        The module; its attribute `spec` is the spec.

    Raises:
        SpecError: `spec` is neither a spec nor a name, PyTorch has no primitive for one of its nodes, or the seed, the
            dtype or an option is invalid.
        PresetError: no preset has that name, or it has no such option.
        WeightsError: `pretrained` is True, and the package has no weights for the preset or for these options.

    Example:
        >>> import torch
        >>> import maam
        >>> model = maam.torch.build("maam_digits", seed=0, num_classes=4)
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 4])
        >>> model.spec == maam.preset("maam_digits", num_classes=4)
        True
    """
    node, arrays = find_start(spec, options, seed, pretrained)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise SpecError(f"dtype: expected a floating torch.dtype such as torch.float16, got {dtype!r}")
    module = instantiate(node, device=device, dtype=dtype)
    module.spec = node  # type: ignore[assignment]
    if isinstance(module, Container):
        module.rule = specs.input_rule(node)
    if arrays is None and seed is not None:
        arrays = specs.draw(node.parameters(), seed)
    if arrays is not None:
        write_arrays(module, arrays)
    return module


def save_weights(model: nn.Module, path: PathLike) -> None:
    """Save the parameters, running statistics and spec of a module to a weights file.

    Args:
        model: a model or layer of maam. It may be wrapped by DistributedDataParallel, AveragedModel or torch.compile.
        path: the file to write; an existing file is replaced atomically.

    Raises:
        WeightsError: the module was not built by maam, has a layer that its spec does not describe, or has arrays that
            do not fit the spec or are not finite; or the file cannot be written.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.safetensors")
        ...     maam.torch.save_weights(maam.torch.build("maam_digits"), path)
        ...     maam.torch.load(path).spec == maam.preset("maam_digits")
        True
    """
    check_model(model, nn.Module, "torch.nn.Module", "save_weights")
    own = unwrap(model)
    check_integrity(own, "save_weights", WeightsError)
    check_methods(own, "save_weights", WeightsError)
    save_model(path, own, read_arrays)


def load_weights(
    model: nn.Module,
    path: PathLike,
    strict: bool = True,
    skip: Sequence[str] = (),
    *,
    key: str | None = None,
    prefix: str | None = None,
) -> Mismatch:
    """Copy the arrays of a file into a module, cast to the module's dtypes.

    The module is unchanged if an error is raised.

    Args:
        model: a model or layer of maam.
        path: a weights file, or any file that `maam.convert` reads.
        strict: whether all names must match, and the file's spec, if it has one, must compute the same as the
            module's.
        skip: names of layers that keep their weights, such as ("classifier",).
        key: the key of the set of weights, for a file with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.

    Returns:
        The names that only the module has (`missing`) and that only the file has (`unexpected`).

    Raises:
        WeightsError: the file is broken or of another model, an array has the wrong shape or is not finite in the
            module's dtype, or a layer of the module was replaced and is not in `skip`.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.safetensors")
        ...     maam.torch.save_weights(maam.torch.build("maam_digits"), path)
        ...     model = maam.torch.build("maam_digits", num_classes=4)
        ...     maam.torch.load_weights(model, path, skip=("classifier.fc2",))
        Mismatch(missing=(), unexpected=())
    """
    check_model(model, nn.Module, "torch.nn.Module", "load_weights")
    own = unwrap(model)
    if strict:
        check_integrity(own, "load_weights", WeightsError, skip)
    return load_into(own, path, strict, skip, _slots, write_arrays, selection=Selection(key, prefix), read=read_file)


def _slots(model: nn.Module) -> dict[str, Slot]:
    own = tensors(model)
    return {name: Slot(tuple(array.shape), FLOATING.get(array.dtype)) for name, array in own.items()}


def load(
    path: PathLike,
    dtype: torch.dtype | None = None,
    *,
    num_classes: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    spec: Node | str | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> nn.Module:
    """Build the model or layer that a weights file describes, with its weights, in train mode.

    Args:
        path: a weights file, or any file that `maam.convert` reads.
        dtype: the dtype of all arrays; None keeps those of the file, but casts float16 and bfloat16 to float32.
        num_classes: the number of classes. If the file has another number, the last layer is replaced by a new one,
            and the others keep their weights.
        seed: the seed for the weights of the new layer, which are bit-identical in every framework.
        device: the device of the model; None uses the CPU.
        spec: a spec or the name of a preset, for a file that contains no spec, such as a checkpoint.
        key: the key of the set of weights, for a file with several; see `maam.convert`.
        prefix: a prefix of the names to remove; see `maam.convert`.

    Returns:
        The module; its attribute `spec` is the spec of the file, with the new number of classes.

    Raises:
        WeightsError: the file is broken, its arrays do not fit its spec, the file has no spec and `spec` is None, the
            file's spec and `spec` compute different functions, there is no set `key`, or a value is too large for
            `dtype`.
        SpecError: the file's model is not a classifier, or `num_classes` or `seed` is invalid.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import torch
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     path = Path(folder, "digits.safetensors")
        ...     maam.reference.save_weights(maam.reference.build("maam_digits", seed=0), path)
        ...     model = maam.torch.load(path, torch.float32, num_classes=3).eval()
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3])
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
    model = build(node, device="meta")
    state: dict[str, Any] = {name: from_numpy(array) for name, array in arrays.items()}
    model.load_state_dict(state, strict=False, assign=True)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.num_batches_tracked = torch.tensor(0)
    return model if device is None else model.to(device)


# --- PyTorch's own checkpoints


def read_checkpoint(
    path: Path, spec: Node | None = None, selection: Selection | None = None
) -> tuple[dict[str, Array], Node | None]:
    """Return the arrays of a state_dict file by the names of the model, and its spec, or None if it contains none.

    Tensors are loaded to the CPU, and no code in the file is run. Batch counters are left out.

    Args:
        path: the file.
        spec: the spec of the model, if it is known; it helps to find the set of weights and the prefix of its names.
        selection: the set of weights and the prefix; None: selected automatically.

    Raises:
        WeightsError: the file is truncated or not a checkpoint, or it contains Python objects or a tensor that is not
            dense or not of a floating-point dtype.
    """
    content = load_content(path)
    saved = _saved_spec(path, content)
    state = choose_tensors(path, content, () if (node := saved or spec) is None else names_of(node), selection)
    return {name: _array(path, name, value) for name, value in state.items() if not is_batch_counter(str(name))}, saved


def choose_tensors(
    path: Path, content: object, wanted: Collection[str], selection: Selection | None = None
) -> dict[str, Any]:
    """Return one set of weights of a loaded file; see `maam.weights.sets.choose`.

    Raises:
        WeightsError: the content is not a dict, or has no such set.
    """
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: contains a {type(content).__name__}; {_EXPECTED}")
    sets = find_sets(content, lambda value: isinstance(value, torch.Tensor), wanted)
    return choose(path, sets, wanted, selection)


def _saved_spec(path: Path, content: object) -> Node | None:
    text = content.get("spec") if isinstance(content, Mapping) else None
    if not isinstance(text, str):
        return None
    try:
        return parse_json(text)
    except SpecError as error:
        raise WeightsError(f"{path}: the spec in the file is invalid: {error}") from None


def write_checkpoint(path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
    """Write a state_dict with canonical names; the suffix `.pth.tar` writes a dict of it and the spec's JSON text.

    Raises:
        OSError: the file cannot be written; an existing file is unchanged.
    """
    state = {p.name: from_numpy(arrays[p.name]) for p in spec.parameters()}
    whole = path.name.endswith(".pth.tar")
    buffer = io.BytesIO()
    torch.save({"state_dict": state, "spec": spec.to_json()} if whole else state, buffer)
    write_bytes(path, buffer.getvalue())


def load_content(path: Path) -> Any:
    """Return the content of a PyTorch or safetensors file, with tensors on the CPU; no code in the file is run.

    Raises:
        WeightsError: the file cannot be read, or contains Python objects.
    """
    if path.suffix == ".safetensors":
        return {name: from_numpy(array) for name, array in read_safetensors(path)[1].items()}
    try:
        with open_regular(path) as file:
            _check_size(path, file)
            return _unpickle(path, file)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None


def _check_size(path: Path, file: BinaryIO) -> None:
    """Check that a zip file does not expand to a multiple of its size; torch.save never compresses.

    Raises:
        WeightsError: it does, or it is damaged.
    """
    try:
        entries = zipfile.ZipFile(file).infolist() if zipfile.is_zipfile(file) else []
    except Exception:  # zipfile raises many kinds for damaged files
        raise _damaged(path) from None
    expanded = sum(entry.file_size for entry in entries)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if expanded > _MAX_EXPANSION * size:
        raise WeightsError(
            f"{path}: the file of {size} bytes expands to {expanded}; expected a checkpoint without compression, as "
            "torch.save writes it"
        )


def _unpickle(path: Path, file: BinaryIO) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats, which can be loaded
            return torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:  # any type; PyTorch's own message advises running the code in the file
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"{path}: contains a Python object, {found[1][:100]}, and loading it can run code; "
                "if you trust the file, load it with PyTorch and save model.state_dict() alone"
            ) from None
        raise _damaged(path) from None


def _damaged(path: Path) -> WeightsError:
    return WeightsError(
        f"{path}: not a PyTorch checkpoint that contains only tensors, or truncated; save model.state_dict() again"
    )


def _array(path: Path, name: object, value: object) -> Array:
    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise WeightsError(f"{path}: contains a {type(value).__name__} under {listed([str(name)])}; {_EXPECTED}")
    if value.dtype not in FLOATING:
        known = ", ".join(dtype.name for dtype in FLOATING.values())
        raise WeightsError(f"{path}: {listed([name])} has dtype {dtype_name(value.dtype)}; expected one of {known}")
    if not _is_dense(value):
        raise WeightsError(f"{path}: {listed([name])} is not a dense tensor with data in the file; save a dense one")
    return to_numpy(value)


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return whether a tensor is dense; False also for tensors without data and few values expanded to a huge shape."""
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
