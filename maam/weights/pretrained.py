"""Trained weights in the package, by the name of their preset, each with a card that says what they were trained on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from maam._messages import shortened, suggestion
from maam.errors import WeightsError
from maam.spec import Model, Node, preset
from maam.spec.presets import aliases, list_presets, resolve
from maam.weights.exchange import PathLike, cast, read_whole
from maam.weights.file import model_header, read_header_and_arrays, write_safetensors
from maam.weights.match import check_same_function, match

Array = np.ndarray[Any, Any]
FOLDER = Path(__file__).with_name("pretrained")
_KEY = "card"


class Card(NamedTuple):
    """A description of trained weights.

    Attributes:
        data: the name of the data set.
        class_names: the name of each class.
        accuracy: the accuracy on the test images of the data set, of these weights in float32, 0 to 1.
        preprocessing: how images become the input, in words.
        command: the command that trained the weights.
    """

    data: str
    class_names: tuple[str, ...]
    accuracy: float
    preprocessing: str
    command: str


def list_pretrained() -> list[str]:
    """Return the names of the presets with weights in the package, sorted.

    Example:
        >>> from maam.weights import list_pretrained
        >>> "maam_cifar10_2m3" in list_pretrained()
        True
    """
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def has_pretrained(name: object) -> bool:
    """Return whether a name is that of a preset with weights in the package."""
    return isinstance(name, str) and aliases().get(name, name) in list_pretrained()


def find_pretrained(name: object) -> Path:
    """Return the weights file of a preset.

    Raises:
        WeightsError: the package has no weights for it.
    """
    if not isinstance(name, str):
        raise WeightsError(f"pretrained: expected the name of a preset, got an object of type {type(name).__name__}")
    if not has_pretrained(name):
        raise WeightsError(f"{name[:60]}: the package has no pretrained weights of this name; {hint_for(name)}")
    return FOLDER / f"{aliases().get(name, name)}.safetensors"


def hint_for(name: str) -> str:
    """Return the end of a message about a name without pretrained weights: the most similar one, or all of them."""
    known = list_pretrained()
    every = f"weights exist for: {', '.join(known)}"
    return every if name in list_presets() else suggestion(name.lower(), known, every)


def find_start(
    spec: Node | str, options: Mapping[str, Any], seed: int | None, pretrained: bool
) -> tuple[Node, dict[str, Array] | None]:
    """Return a spec or the spec of a preset, and its pretrained weights, float32, or None without `pretrained`.

    Raises:
        WeightsError: `pretrained` is not a bool, or as in `read_pretrained`.
        PresetError, SpecError: there is no such preset, or an option is unknown or has an invalid value.

    Example:
        >>> from maam.weights.pretrained import find_start
        >>> find_start("maam_digits", {"num_classes": 4}, None, False)[0].num_classes
        4
    """
    if not isinstance(pretrained, (bool, np.bool_)):
        raise WeightsError(
            f"pretrained: expected True or False, got {shortened(pretrained)}; to load a file, call load(path)"
        )
    return read_pretrained(spec, options, seed) if pretrained else (resolve(spec, **options), None)


def read_pretrained(name: object, options: Mapping[str, Any], seed: int | None = None) -> tuple[Node, dict[str, Array]]:
    """Return the spec and the weights of a preset, float32.

    Args:
        name: the preset.
        options: its options. With another `num_classes`, the last layer is new and the others keep their weights.
        seed: the seed of a new last layer; None for 0.

    Raises:
        WeightsError: the package has no weights for the preset, or an option changes another layer.
        PresetError, SpecError: an option is unknown or has an invalid value.

    Example:
        >>> from maam.weights.pretrained import read_pretrained
        >>> node, arrays = read_pretrained("maam_cifar10_2m3", {"num_classes": 4})
        >>> node.num_classes, arrays["classifier.fc2.weight"].shape
        (4, (4, 256))
    """
    path = find_pretrained(name)
    wanted = preset(str(name), **options)
    spec, arrays = read_whole(path, np.dtype(np.float32), wanted.num_classes, 0 if seed is None else seed)
    assert isinstance(spec, Model)
    try:
        check_same_function(wanted, spec, source=path.name)
        return wanted, match(wanted, arrays, source=path.name)[0]
    except WeightsError:
        if not set(options) - {"num_classes"}:
            raise
        changed = ", ".join(f"{option}={value!r}" for option, value in options.items() if option != "num_classes")
        raise WeightsError(
            f"{name}: the pretrained weights do not fit the options {changed}; only num_classes may change a layer: "
            "leave the others out, or build the model without pretrained"
        ) from None


def read_card(path: PathLike) -> Card | None:
    """Return the card of a weights file; None if it has none.

    Raises:
        WeightsError: the file or its card is broken.

    Example:
        >>> from maam.weights.pretrained import find_pretrained, read_card
        >>> read_card(find_pretrained("maam_cifar10_2m3")).class_names[:3]
        ('airplane', 'automobile', 'bird')
    """
    text = read_header_and_arrays(path)[0].get(_KEY)
    if text is None:
        return None
    try:
        fields = json.loads(text)
        names = tuple(map(str, fields["class_names"]))
        texts = (str(fields[name]) for name in ("data", "preprocessing", "command"))
        data, preprocessing, command = texts
        return Card(data, names, float(fields["accuracy"]), preprocessing, command)
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{path}: the card in the file is broken: {error}") from None


def write_pretrained(source: PathLike, target: PathLike, card: Card) -> None:
    """Write weights in float16 with a card and the spec of their preset, as the files in the package have them.

    Args:
        source: a weights file of a preset.
        target: the file to write.
        card: its card.

    Raises:
        WeightsError: `source` is broken, too large for float16 or not that of a preset, or `target` cannot be written.
        PresetError: no preset has the name of the model.
    """
    trained, arrays = read_whole(source)
    spec = preset(trained.name) if isinstance(trained, Model) else trained
    check_same_function(spec, trained, source=str(source))  # a recipe may have changed the momentum of batch norms
    half = cast(arrays, dict.fromkeys(arrays, np.dtype(np.float16)), source=str(source))
    write_safetensors(target, half, {**model_header(spec), _KEY: json.dumps(card._asdict())})
