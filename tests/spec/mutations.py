"""Mutated copies of valid spec documents, to test that the parser raises only planned errors."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from maam.spec import Activation, Conv2d, Model, Residual, Scale, maam, preset

_REPLACEMENTS = (None, True, False, 0, -1, 3, 2.5, 1e999, float("nan"), 10**40, "", "3", "relu")
_REPLACEMENTS += (2**24, 2**40, 1e-300, 1e308, "conv2d", "\ud800", [], [1], {}, {"kind": "x"}, {"kind": "identity"})
_REPLACEMENTS += ({"kind": "linear", "in_features": 2**24, "out_features": 2**24},)
_NAMES = ("kind", "name", "children", "self", "weights", "a.b", "\n", "", "ключ", "x" * 300, "\ud800", "__class__")
_NAMES += ("agents.alpha", "\x00")
_AGAIN = "@again@"


def bases() -> list[str]:
    conv = Conv2d(in_channels=4, out_channels=4, kernel_size=3, padding=1, groups=2)
    gate = {"act": Activation(function="leaky_relu", negative_slope=0.2), "scale": Scale(children={"conv": conv})}
    small = Model(name="small", input_shape=(4, 8, 8), children={"residual": Residual(children=gate)})
    layer = maam(4, fusion="dynamic", scales=(1, 2), num_agents=2)
    mean = maam(4, fusion="mean", num_agents=2, pool=2)
    return [spec.to_json() for spec in (small, layer, mean, preset("rnn"), preset("maam_digits", dropout=0.5))]


def mutants(count: int, seed: int) -> Iterator[tuple[str, str | bytes]]:
    """Yield `count` pairs of the name of a mutation and a mutated text."""
    rng, texts = random.Random(seed), bases()
    for index in range(count):
        mutate = MUTATIONS[index % len(MUTATIONS)]
        yield mutate.__name__, mutate(rng, rng.choice(texts))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(item)


def _in_one_object(kind: str) -> Callable[[random.Random, str], str]:
    """Return a mutation that edits a random field of a random object."""

    def mutate(rng: random.Random, text: str) -> str:
        document = json.loads(text)
        target = rng.choice([item for item in _objects(document) if item])
        _edit(kind, rng, target, rng.choice(list(target)))
        return json.dumps(document).replace(_AGAIN, "")

    mutate.__name__ = kind
    return mutate


def _edit(kind: str, rng: random.Random, target: dict[str, Any], field: str) -> None:
    value = target[field]
    if kind == "delete":
        del target[field]
    elif kind == "rename":
        target[rng.choice([*_NAMES, field.upper(), field + "_", field[1:]])] = target.pop(field)
    elif kind == "retype":
        target[field] = rng.choice(_REPLACEMENTS)
    elif kind == "negate":
        numbers = [name for name, number in target.items() if type(number) in (int, float)]
        target[rng.choice(numbers or [field])] = -1 if not numbers else -abs(target[numbers[0]]) - rng.choice([0, 1])
    elif kind == "add":
        target[rng.choice(_NAMES)] = rng.choice([*_REPLACEMENTS, value])
    elif kind == "swap":
        other = rng.choice(list(target))
        target[field], target[other] = target[other], value
    else:
        target[f"{_AGAIN}{field}"] = value


def truncate(rng: random.Random, text: str) -> str:
    return text[: rng.randrange(len(text))]


def flip_bits(rng: random.Random, text: str) -> bytes:
    data = bytearray(text.encode())
    for _ in range(rng.randint(1, 3)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def replace_character(rng: random.Random, text: str) -> str:
    at = rng.randrange(len(text))
    return text[:at] + rng.choice('{}[]",:0-9eE.\\\n\0 ntf') + text[at + 1 :]


def insert_number(rng: random.Random, text: str) -> str:
    at = rng.choice([index for index, character in enumerate(text) if character.isdigit()])
    return text[:at] + rng.choice(["-", "0", "9" * 30, "1e", ".", "1." * 2, "NaN", "1" * 5000]) + text[at:]


EDITS = tuple(map(_in_one_object, ("delete", "rename", "retype", "negate", "add", "swap")))
MUTATIONS = (*EDITS, _in_one_object("duplicate"), truncate, flip_bits, replace_character, insert_number)
