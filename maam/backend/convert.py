"""Converting weights between maam's files, plain PyTorch checkpoints and MindSpore checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import cast as typed

from maam.backend.protocol import CheckpointBackend
from maam.backend.registry import checkpoint_suffixes, load_checkpoint_backend
from maam.errors import WeightsError
from maam.spec import Node
from maam.spec.presets import resolve
from maam.weights import match, write_weights
from maam.weights.exchange import Array, PathLike, cast, numpy_dtype
from maam.weights.file import DTYPES, check_path, read_safetensors
from maam.weights.match import check_same_function


class _WeightsFiles:
    def read_checkpoint(self, path: Path, spec: Node | None) -> tuple[dict[str, Array], Node | None]:
        saved, arrays = read_safetensors(path)
        return arrays, saved

    def write_checkpoint(self, path: Path, spec: Node, arrays: dict[str, Array]) -> None:
        write_weights(path, spec, arrays)


def convert(src: PathLike, dst: PathLike, spec: Node | str | None = None, *, dtype: str | None = None) -> Node:
    """Convert a file of weights into another kind, both told by their suffixes; returns the spec.

    Values and dtypes (float16, bfloat16, float32, float64) stay bit for bit, unless `dtype` is given. Kinds:
    `.safetensors`, maam's own or of any origin; `.pth` and `.pt`, a PyTorch state_dict; `.pth.tar`, a dict with the
    state_dict and the spec (a dict with a state_dict can be read under all three); `.ckpt` of MindSpore, whose
    optimizer state is left out.

    Args:
        src: the file to read.
        dst: the file to write; one that is there is replaced.
        spec: a spec or a preset's name: needed where `src` carries none (of what is written here, `.safetensors`
            and `.pth.tar` do), else it must compute the same as the one in the file, which is kept.
        dtype: "float16", "bfloat16", "float32" or "float64": every array is rounded to it, once. A file of half
            precision is half as large; `load(path, dtype=)` of each framework widens it again. None keeps each
            array's own.

    Raises:
        WeightsError: a suffix is unknown, `src` is missing or broken or does not fit the spec, no spec is known,
            two contradict each other, `dtype` is unknown or a value too large for it, or `dst` cannot be written.
        PresetError: there is no preset of that name.
        SpecError: `spec` is neither a spec nor a name.
        MissingFrameworkError: the framework of a file is not installed.
    """
    check_path(src)
    source, target = Path(src), Path(dst)
    reader, writer = _format(source), _format(target)
    _check_paths(source, target)
    given = None if spec is None else resolve(spec)
    rounded = numpy_dtype(dtype, {known.name: known for known in DTYPES.values()})
    arrays, saved = reader.read_checkpoint(source, given)
    node = _agreed(source, saved, given)
    matched, _ = match(node, arrays, source=str(source), advice=_advice)
    if rounded is not None:
        matched = cast(matched, dict.fromkeys(matched, rounded), source=str(source))
    try:
        writer.write_checkpoint(target, node, matched)
    except OSError as error:
        raise WeightsError(f"{target}: cannot be written: {error.strerror or error}") from None
    return node


def _format(path: Path) -> _WeightsFiles | CheckpointBackend:
    if path.name.endswith(".safetensors"):
        return _WeightsFiles()
    suffixes = checkpoint_suffixes()
    for suffix, backend in suffixes.items():
        if path.name.endswith(suffix):
            return load_checkpoint_backend(backend)
    known = ", ".join([".safetensors", *suffixes])
    raise WeightsError(f"{path}: unknown suffix {path.suffix[:60]!r}; known are {known}")


def _check_paths(source: Path, target: Path) -> None:
    try:
        _check_files(source, target)
    except OSError as error:  # names that are too long, folders that cannot be looked into
        raise WeightsError(f"{error.filename or source}: {error.strerror or error}") from None


def _check_files(source: Path, target: Path) -> None:
    if not source.exists():
        raise WeightsError(f"{source}: no such file")
    if source.is_dir() or target.is_dir():
        raise WeightsError(f"{source if source.is_dir() else target}: a folder; give a file")
    if not target.parent.is_dir():
        raise WeightsError(f"{target}: there is no folder {target.parent}; make it first")
    if target.exists() and source.samefile(target):
        raise WeightsError(f"{target}: source and destination are one file; give another destination")


def _advice(classes: tuple[int, int] | None) -> str:
    if classes is None:
        return ""
    return (
        f"the file has {classes[0]} classes and the spec {classes[1]}: give a spec of {classes[0]} classes, as "
        f"maam.preset(NAME, num_classes={classes[0]}).to_json() writes one; load() can then replace the head"
    )


def _agreed(source: Path, saved: Node | None, given: Node | None) -> Node:
    if saved is None and given is None:
        raise WeightsError(
            f"{source}: carries no spec; give one as spec (--spec): a preset's name, or a spec (a JSON file of one)"
        )
    if saved is None or given is None:
        return typed(Node, saved or given)
    check_same_function(given, saved, source=str(source), advice="leave spec (--spec) out to use the file's own")
    return saved
