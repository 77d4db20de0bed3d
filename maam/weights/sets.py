"""Files with several sets of weights: the choice of a set, and the prefix that is removed from its names.

A training script often saves the weights of a model and their moving average in one file, and names of arrays can have
a prefix because the model was part of another module. Every function that reads a file chooses by the same rules.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from maam._messages import listed, suggestion
from maam.errors import WeightsError
from maam.weights.match import strip_prefix

Value = TypeVar("Value")
REST = "model"
"""The key of the arrays beside a moving average in a file that has no keys."""
USUAL = ("state_dict", "model", "model_state_dict", "module", "net", "network", "params", "weights")
"""The keys that training scripts use for the weights of the model, in the order of preference."""
AVERAGES = ("ema", "model_ema", "ema_model", "state_dict_ema", "averaged_model", "swa_model")
"""Names in front of a moving average of the weights, as in `ema.conv.weight`."""
PARTS = ("model", "backbone", "net", "network", "encoder", "module", "_orig_mod", "_model", "_backbone")
"""Prefixes that are removed from all names if the names of the model are unknown."""
_AVERAGED = ("ema", "swa", "average")
_TRAINING = ("optim", "sched", "scaler", "loss", "criterion")
"""Parts of keys whose arrays belong to the training, not to the model."""
_COUNT = "n_averaged"
"""The counter of PyTorch's AveragedModel."""
_DEPTH = 3


class SeveralSetsWarning(UserWarning):
    """A warning that a file has several sets of weights; it names the set that is taken."""


class Selection(NamedTuple):
    """The caller's choice of a set of weights.

    Attributes:
        key: the key of the set, such as "state_dict_ema"; the keys of nested dicts are joined by dots. None: selected
            automatically, a moving average first, as in timm.
        prefix: the prefix to remove from the names, such as "model"; arrays without it are left out. None removes a
            prefix that all names have and the model does not; "" removes none.
    """

    key: str | None = None
    prefix: str | None = None


Sets = Mapping[str, Mapping[str, Value]]


def find_sets(content: Mapping[Any, Any], is_array: Callable[[Any], bool], wanted: Collection[str] = ()) -> Sets[Any]:
    """Return the sets of weights in the content of a file, by key; the key of a file with a single set can be "".

    Args:
        content: arrays by name, or a dict that contains such dicts.
        is_array: returns whether a value is an array.
        wanted: the names of the model, which can have layers with a name such as "ema".
    """
    found = dict(_nested(content, "", is_array, _DEPTH))
    if not found:
        key = next((key for key in USUAL if isinstance(content.get(key), Mapping)), "")
        found = {key: content[key] if key else content}
    return {key: values for name, whole in found.items() for key, values in _split(name, whole, wanted)}


def _nested(content: Mapping[Any, Any], path: str, is_array: Callable[[Any], bool], depth: int) -> Iterator[Any]:
    for key, value in content.items():
        if not isinstance(value, Mapping) or not isinstance(key, str) or any(part in key.lower() for part in _TRAINING):
            continue
        name = f"{path}.{key}" if path else key
        if value and all(isinstance(one, str) and is_array(array) for one, array in value.items()):
            yield name, value
        elif depth > 1:
            yield from _nested(value, name, is_array, depth - 1)


def _split(key: str, values: Mapping[Any, Value], wanted: Collection[str]) -> Iterator[tuple[str, Mapping[Any, Value]]]:
    """Yield the set without the arrays of moving averages, and each moving average as a separate set."""
    averages: dict[str, dict[str, Value]] = {}
    rest: dict[Any, Value] = {}
    for name, value in values.items():
        first, _, below = str(name).partition(".")
        if below and first in AVERAGES and name not in wanted:
            averages.setdefault(first, {})[below] = value
        else:
            rest[name] = value
    if not averages:
        yield key, values
        return
    if rest:
        yield key or REST, rest
    for first, average in averages.items():
        yield f"{key}.{first}" if key else first, average


def choose(
    source: object, sets: Sets[Value], wanted: Collection[str] = (), selection: Selection | None = None
) -> dict[str, Value]:
    """Return the arrays of one set, by the names of the model; wrapper prefixes such as `module.` remain.

    Args:
        source: the file's name, for messages.
        sets: the result of `find_sets`.
        wanted: the names of the model; empty if they are unknown.
        selection: the caller's choice; None: selected automatically.

    Raises:
        WeightsError: there is no set of that key, or no name has that prefix; or one of them is not a string.

    Warns:
        SeveralSetsWarning: several sets fit, and the caller did not choose.
    """
    selection = selection or Selection()
    for option, value in selection._asdict().items():
        if value is not None and not isinstance(value, str):
            raise WeightsError(f"{option} (--{option}): expected a string or None, got {value!r}")
    key = _best_key(source, sets, wanted) if selection.key is None else _known_key(source, sets, selection.key)
    return _named(source, sets[key], wanted, selection.prefix)


def _known_key(source: object, sets: Sets[Value], key: str) -> str:
    """Return the key of a set in the file."""
    if key == REST and list(sets) == [""]:
        return ""
    if key not in sets:
        known = f"its sets of weights: {listed(sets)}" if any(sets) else "it has a single set, without a key"
        raise WeightsError(f"{source}: key (--key): no set of weights {key[:60]!r} in the file; {known}")
    return key


def _best_key(source: object, sets: Sets[Value], wanted: Collection[str]) -> str:
    """Return the key of the set with the most names of the model."""
    known_names = {key: strip_common(values, wanted) for key, values in sets.items()}
    fits = {key: sum(strip_prefix(str(name)) in wanted for name in values) for key, values in known_names.items()}
    best = [key for key in sets if fits[key] == max(fits.values())]
    taken, *others = sorted(best, key=_rank)
    if others:
        warnings.warn(
            f"{source}: the file has {len(best)} sets of weights, and {taken!r} is taken; to take another, pass key "
            f"(--key): {listed(others)}",
            SeveralSetsWarning,
            stacklevel=3,
        )
    return taken


def _rank(key: str) -> tuple[bool, int]:
    """Return a sort key: moving averages first, then the usual keys; others keep the order of the file."""
    last = key.rpartition(".")[2]
    return not any(word in key.lower() for word in _AVERAGED), USUAL.index(last) if last in USUAL else len(USUAL)


def _named(
    source: object, values: Mapping[str, Value], wanted: Collection[str], prefix: str | None
) -> dict[str, Value]:
    if not prefix:
        return strip_common(values, wanted) if prefix is None else dict(values)
    start = f"{prefix.rstrip('.')}."
    if found := {name[len(start) :]: value for name, value in values.items() if str(name).startswith(start)}:
        return found
    firsts = list(dict.fromkeys(str(name).partition(".")[0] for name in values))
    hint = suggestion(prefix, firsts, f"names start with {listed(firsts[:5])}")
    raise WeightsError(f"{source}: prefix (--prefix): no name starts with {start[:60]!r}; {hint}")


def strip_common(values: Mapping[str, Value], wanted: Collection[str] = ()) -> dict[str, Value]:
    """Return the values without a prefix that all names have and the model does not, such as `model.`.

    The counter of an AveragedModel is left out.

    Args:
        values: arrays by name.
        wanted: the names of the model. If they are empty, only a prefix in `PARTS` is removed.
    """
    whole = {name: value for name, value in values.items() if name != _COUNT} or dict(values)
    names = {name: str(name) for name in whole}
    while not any(strip_prefix(name) in wanted for name in names.values()):
        first = {name.partition(".")[0] for name in names.values()}
        if len(first) != 1 or not all("." in name for name in names.values()) or not (wanted or first <= set(PARTS)):
            break
        names = {given: name.partition(".")[2] for given, name in names.items()}
    if wanted and not any(strip_prefix(name) in wanted for name in names.values()):
        return whole  # no prefix makes them fit: messages show the names of the file
    return {names[name]: value for name, value in whole.items()}
