"""Conversion of weights between maam's files, PyTorch checkpoints and MindSpore checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from maam.backend.protocol import CheckpointBackend
from maam.backend.registry import checkpoint_suffixes, export_formats, load_checkpoint_backend
from maam.errors import WeightsError
from maam.spec import Node
from maam.spec.presets import resolve
from maam.weights import match, write_weights
from maam.weights.exchange import Array, PathLike, agreed_spec, cast, numpy_dtype
from maam.weights.file import DTYPES, check_path, read_set
from maam.weights.sets import Selection

_SPEC_ADVICE = "pass spec (--spec): the name of a preset, or a spec (--spec: its JSON file)"


class _WeightsFiles:
    """maam's weights files, with the methods of `CheckpointBackend`."""

    def read_checkpoint(
        self, path: Path, spec: Node | None = None, selection: Selection | None = None
    ) -> tuple[dict[str, Array], Node | None]:
        return read_set(path, spec, selection)

    def write_checkpoint(self, path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
        write_weights(path, spec, arrays)


def convert(
    src: PathLike,
    dst: PathLike,
    spec: Node | str | None = None,
    *,
    dtype: str | None = None,
    key: str | None = None,
    prefix: str | None = None,
) -> Node:
    """Convert a file of weights into another format, and return its spec.

    The suffixes choose the formats:

    - `.safetensors`: maam's weights file, or a safetensors file of any origin.
    - `.pth`, `.pt`: a PyTorch state_dict.
    - `.pth.tar`: a dict with a state_dict and the spec. Such a dict can also be read from `.pth` and `.pt`.
    - `.ckpt`: a MindSpore checkpoint; optimizer state in it is left out.

    A file can have several sets of weights, for example those of the model and their moving average. Without `key`, the
    moving average is taken, as timm does, and a `SeveralSetsWarning` names the others.

    Args:
        src: the file to read.
        dst: the file to write; an existing file is replaced.
        spec: a spec or the name of a preset; required if `src` contains no spec. Otherwise it must compute the same as
            the spec in the file, and the file's spec is used.
        dtype: "float16", "bfloat16", "float32" or "float64" rounds every array once; None keeps all values and dtypes
            bit for bit.
        key: the key of the set of weights, such as "state_dict_ema", or "ema" for arrays named `ema.*`.
        prefix: a prefix of the names to remove, such as "model"; arrays without it are left out. None removes the
            prefixes of wrappers, and a prefix that all names have and the model does not.

    Returns:
        The spec of the model.

    Raises:
        WeightsError: a suffix is unknown; `src` is missing or broken, or does not fit the spec; there is no spec, or
            two specs differ; `dtype` is unknown, or a value is too large for it; `src` has no set `key` or no name
            with `prefix`; `dst` cannot be written.
        PresetError: no preset has that name.
        SpecError: `spec` is neither a spec nor a name.
        MissingFrameworkError: the framework of a format is not installed.

    Example:
        >>> from pathlib import Path
        >>> from tempfile import TemporaryDirectory
        >>> import maam
        >>> with TemporaryDirectory() as folder:
        ...     source, half = Path(folder, "digits.safetensors"), Path(folder, "half.safetensors")
        ...     maam.reference.save_weights(maam.reference.build("maam_digits", seed=0), source)
        ...     spec = maam.convert(source, half, dtype="float16")
        ...     spec.name, half.stat().st_size < source.stat().st_size
        ('maam_digits', True)
    """
    check_path(src)
    check_path(dst)
    source, target = Path(src), Path(dst)
    if _is_exported(source):
        raise WeightsError(
            f"{source}: this is a file for inference engines, whose weights cannot be converted back; convert the "
            "weights file or the checkpoint that it was exported from"
        )
    reader, writer = _format(source), _format(target)
    _check_paths(source, target)
    given = None if spec is None else resolve(spec)
    rounded = numpy_dtype(dtype, {known.name: known for known in DTYPES.values()})
    arrays, saved = reader.read_checkpoint(source, given, Selection(key, prefix))
    node = agreed_spec(source, saved, given, _SPEC_ADVICE)
    matched, _ = match(node, arrays, source=str(source), advice=_advice)
    if rounded is not None:
        matched = cast(matched, dict.fromkeys(matched, rounded), source=str(source))
    try:
        writer.write_checkpoint(target, node, matched)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from None
    return node


def read_file(path: PathLike, spec: Node | None, selection: Selection) -> tuple[dict[str, Array], Node | None]:
    """Return the arrays of a file by canonical name, and the spec in the file, or None if it contains none.

    Args:
        path: a weights file, a checkpoint of a framework, or a safetensors file; the suffix tells checkpoints apart.
        spec: the spec of the model, if it is known.
        selection: the set of weights, and the prefix of its names.

    Raises:
        WeightsError: the file is missing or broken, or has no such set.
        MissingFrameworkError: the framework of the format is not installed.
    """
    path = Path(path)
    suffixes = checkpoint_suffixes()
    backend = next((backend for suffix, backend in suffixes.items() if path.name.endswith(suffix)), None)
    reader = _WeightsFiles() if backend is None or not path.is_file() else load_checkpoint_backend(backend)
    return reader.read_checkpoint(path, spec, selection)


def _format(path: Path) -> _WeightsFiles | CheckpointBackend:
    if path.name.endswith(".safetensors"):
        return _WeightsFiles()
    suffixes = checkpoint_suffixes()
    for suffix, backend in suffixes.items():
        if path.name.endswith(suffix):
            return load_checkpoint_backend(backend)
    known = ", ".join([".safetensors", *suffixes])
    if _is_exported(path):
        raise WeightsError(f"{path}: this is a format of inference engines; write it with: maam export SRC {path.name}")
    raise WeightsError(f"{path}: unknown suffix {path.suffix[:60]!r}; expected one of {known}")


def _is_exported(path: Path) -> bool:
    return any(path.name.endswith(one.suffix) for one, _ in export_formats().values())


def _check_paths(source: Path, target: Path) -> None:
    try:
        if not source.exists():
            raise WeightsError(f"{source}: no such file")
        if source.is_dir() or target.is_dir():
            raise WeightsError(f"{source if source.is_dir() else target}: expected a file, got a folder")
        if not target.parent.is_dir():
            raise WeightsError(f"{target}: the folder {target.parent} does not exist; create it first")
        if target.exists() and source.samefile(target):
            raise WeightsError(f"{target}: source and destination are the same file; choose another destination")
    except OSError as error:  # a name is too long, or a folder cannot be searched
        raise WeightsError(f"{error.filename or source}: {error.strerror or error}") from None


def _advice(classes: tuple[int, int] | None) -> str:
    if classes is None:
        return ""
    return (
        f"the file has {classes[0]} classes and the spec {classes[1]}: pass a spec with {classes[0]} classes, such as "
        f"maam.preset(NAME, num_classes={classes[0]}).to_json(); to change the number afterwards use "
        "load(path, num_classes=...)"
    )
