"""The inputs of a port: random batches of a shape, arrays, and their notation on the command line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam._io import open_regular
from maam._messages import check_counts, is_count, shortened
from maam.backend.adapter import Inputs
from maam.data.image_batches import open_picture
from maam.errors import PortingError, require

Array = np.ndarray[Any, Any]
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
_DTYPES = ("float32", "int64", "int32")
_DIGITS = 10
_MOST = 2**31
"""The largest number of elements of a random batch: 8 GB of float32."""
_USAGE = (
    "write the shape of one sample, such as 3,224,224; several inputs in quotes, such as "
    '"3,224,224 10:int64:1000" (integers below 1000); or files: a batch in .npy, or an image'
)


def make_inputs(shape: Sequence[int] | None, inputs: Any, batch_size: int, seed: int) -> Inputs:
    """Return the inputs of a comparison: those given, or a random batch.

    Args:
        shape: the shape of one sample.
        inputs: a batch, or several.
        batch_size: the number of random samples.
        seed: the seed of random samples.

    Raises:
        PortingError: not exactly one of `shape` and `inputs` was given, or an argument is invalid.
    """
    check_counts(PortingError, batch_size=batch_size)
    check_seed(seed)
    if (shape is None) == (inputs is None):
        raise PortingError("pass exactly one of input_shape (the shape of one sample) and inputs (a batch)")
    if inputs is not None:
        several = isinstance(inputs, (tuple, list)) and any(getattr(part, "ndim", 0) for part in inputs)
        return tuple(_checked(part) for part in (inputs if several else (inputs,)))
    if not isinstance(shape, (tuple, list)) or not all(map(is_count, shape)):
        raise PortingError(f"input_shape: expected positive integers such as (3, 224, 224), got {shortened(shape)}")
    sizes = tuple(int(size) for size in shape)
    _check_size("input_shape", sizes, batch_size)
    return (_random(sizes, batch_size, np.random.default_rng([seed, 3])),)


def check_seed(seed: object) -> None:
    """Raise `PortingError` unless the seed is one that both frameworks take."""
    if type(seed) is bool or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise PortingError(f"seed: expected an integer in [0, 2**63), got {shortened(seed)}")


def _check_size(option: str, shape: tuple[int, ...], batch_size: int) -> None:
    if math.prod((batch_size, *shape)) > _MOST:
        size = f"{batch_size:,} samples of shape {shortened(shape)}"
        raise PortingError(f"{option}: expected at most {_MOST:,} numbers in a batch, got {size}")


def _checked(part: Any) -> Array:
    try:
        array = np.asarray(part)
    except Exception as error:  # ragged lists, and tensors that have no array
        raise PortingError(f"inputs: expected a batch of numbers as an array: {first_words(error)}") from None
    if array.ndim < 1 or array.size == 0 or array.dtype.kind not in "fiu":
        raise PortingError(f"inputs: expected a batch of numbers, got {array.dtype} of shape {array.shape}")
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def _random(shape: tuple[int, ...], batch_size: int, generator: np.random.Generator) -> Array:
    return generator.standard_normal((batch_size, *shape)).astype(np.float32)


class InputText(NamedTuple):
    """An input in the notation of the command line.

    Attributes:
        shape: the shape of one sample; empty for a file.
        limit: integers are below this number; 0 for real numbers.
        path: the file; None for random numbers.
    """

    shape: tuple[int, ...]
    limit: int = 0
    path: Path | None = None


def parse_inputs(text: str | None) -> list[InputText]:
    """Return the inputs that a text describes.

    Raises:
        PortingError: the text is missing or describes no input.

    Example:
        >>> from maam.porting.inputs import parse_inputs
        >>> [(part.shape, part.limit) for part in parse_inputs("3,8,8 10:int64:1000")]
        [((3, 8, 8), 0), ((10,), 1000)]
    """
    if text is None:
        raise PortingError(f"--input is missing: {_USAGE}")
    parts = text.replace(", ", ",").split()
    if not parts:
        raise PortingError(f"--input: expected positive integers such as 3,224,224, got {text!r}; {_USAGE}")
    return [_parse(part) for part in parts]


def _parse(part: str) -> InputText:
    path = Path(part)
    if path.suffix.lower() in (".npy", *_IMAGES):
        if not path.is_file():
            raise PortingError(f"--input {part}: the file does not exist")
        return InputText((), 0, path)
    sizes, *rest = part.split(":")
    numbers = sizes.split(",")
    dtype, limit = (rest + ["float32", "2"][len(rest) :])[:2] if len(rest) < 3 else ("", "")
    valid = all(map(_is_positive, (*numbers, limit))) and dtype in _DTYPES
    if not valid or (dtype == "float32" and len(rest) == 2):
        raise PortingError(f"--input: expected positive integers such as 3,224,224, got {shortened(part)}; {_USAGE}")
    return InputText(tuple(map(int, numbers)), 0 if dtype == "float32" else int(limit))


def _is_positive(text: str) -> bool:
    """Return whether a text is an integer from 1 to the largest int32."""
    return text.isdecimal() and len(text) <= _DIGITS and 0 < int(text) < 2**31


def load_inputs(parts: Sequence[InputText], batch_size: int, seed: int) -> Inputs:
    """Return the inputs: random numbers, or the contents of files.

    An image becomes a batch with itself and a mirrored copy of it, float32 (2, 3, H, W) in [0, 1].

    Raises:
        MissingFrameworkError: an image was given and Pillow is not installed.
        PortingError: a file cannot be read, a batch is too large, or the seed is invalid.
    """
    check_seed(seed)
    generator = np.random.default_rng([seed, 3])
    found = []
    for part in parts:
        _check_size("--input", part.shape, batch_size)
        if part.path is not None:
            found.append(_read(part.path))
        elif part.limit:
            found.append(generator.integers(0, part.limit, (batch_size, *part.shape)))
        else:
            found.append(_random(part.shape, batch_size, generator))
    if len({len(array) for array in found}) > 1:
        sizes = ", ".join(str(len(array)) for array in found)
        raise PortingError(f"--input: the inputs have different numbers of samples ({sizes}); see --batch-size")
    return tuple(found)


def _read(path: Path) -> Array:
    try:
        if path.suffix.lower() == ".npy":
            with open_regular(path) as file:
                return _checked(np.load(file, allow_pickle=False))
        require("PIL", "train")
        pixels = np.asarray(open_picture(path), np.float32).transpose(2, 0, 1) / 255
        return np.stack([pixels, pixels[:, :, ::-1]])
    except (OSError, ValueError, SyntaxError) as error:
        raise PortingError(f"--input {path}: cannot be read: {first_words(error)}") from None


def first_words(error: Exception) -> str:
    """Return the first line of an error's message, shortened."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
