"""Which layers correspond: pairs, the arrays that belong together, and the reasons why layers do not match."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from maam.backend.adapter import OWN, Layer, Slot

Array = np.ndarray[Any, Any]
Shape = tuple[int, ...]
_HELP = (
    "give both models the same layers, pass the pairs as names={PyTorch's: MindSpore's} (--names), "
    "or leave out layers without a counterpart with skip=(...) (--skip)"
)
_SHOWN = 2
"""The number of layers that an error shows."""
_REMEDIES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("convolution", "bias"): ("bias=", "has_bias="),
    ("transposed convolution", "bias"): ("bias=", "has_bias="),
    ("linear", "bias"): ("bias=", "has_bias="),
}
"""The options of PyTorch and MindSpore that add an array, by the kind of layer and the array's name."""
_ROLE = re.compile("(?<![a-z])w?(q|k|v|query|key|value|queries|keys|values)(?![a-z])")
_NORM_SLOTS = ("weight", "bias", "running_mean", "running_var")


@dataclass(frozen=True)
class MergedLayer(Layer):
    """Several layers whose arrays, joined along their first axis, are those of one layer of the other model.

    Attributes:
        parts: the layers in the order of the joined arrays, such as those of query, key and value.
    """

    parts: tuple[Layer, ...] = ()


class ArrayPair(NamedTuple):
    """Arrays that correspond. Several of one framework are joined along the first axis.

    Attributes:
        name: PyTorch's local name.
        torch: PyTorch's arrays; empty if PyTorch has none because their values would change nothing.
        mindspore: MindSpore's arrays; the same.
    """

    name: str
    torch: tuple[Slot, ...]
    mindspore: tuple[Slot, ...]


class Pair(NamedTuple):
    """A layer of the PyTorch model and the corresponding layer of the MindSpore model.

    Attributes:
        torch: PyTorch's layer; its name is the path in the module.
        mindspore: MindSpore's layer; its name is the path in the cell.

    Example:
        >>> from maam.porting import Layer, Pair
        >>> Pair(Layer("conv1", "convolution"), Layer("stem", "convolution")).name
        'conv1 (MindSpore: stem)'
    """

    torch: Layer
    mindspore: Layer

    @property
    def name(self) -> str:
        """PyTorch's name, with MindSpore's if it differs."""
        own, other = self.torch.name or "the whole model", self.mindspore.name or "the whole model"
        return own if own == other else f"{own} (MindSpore: {other})"

    @property
    def simple(self) -> bool:
        """Whether both sides are single layers of the same kind, which can be compared alone."""
        return self.torch.kind == self.mindspore.kind and not any(isinstance(x, MergedLayer) for x in self)

    @property
    def arrays(self) -> list[ArrayPair]:
        """The corresponding arrays: by name, or in order if a custom layer names them differently."""
        return [
            ArrayPair(key, _parts(self.torch, own), _parts(self.mindspore, other))
            for key, own, other in _keys(self.torch, self.mindspore)
        ]


def _parts(layer: Layer, key: str) -> tuple[Slot, ...]:
    if not key or key not in layer.slots:
        return ()
    return tuple(part.slots[key] for part in layer.parts) if isinstance(layer, MergedLayer) else (layer.slots[key],)


def _keys(torch: Layer, mindspore: Layer) -> list[tuple[str, str, str]]:
    """Return PyTorch's local name, and the keys of the arrays in both layers ("" if a layer has none)."""
    own, other = _compared(torch, mindspore), _compared(mindspore, torch)
    if set(own) != set(other) and OWN in (torch.kind, mindspore.kind) and len(own) == len(other):
        return [(a, a, b) for a, b in zip(own, other, strict=True)]
    return [(key, key if key in own else "", key if key in other else "") for key in dict.fromkeys([*own, *other])]


def _compared(layer: Layer, counterpart: Layer) -> dict[str, Slot]:
    """Return the arrays of a layer without constant tables that the counterpart does not store."""
    if layer.kind != OWN or set(layer.slots) == set(counterpart.slots):
        return dict(layer.slots)
    return {key: slot for key, slot in layer.slots.items() if slot.trainable or key in counterpart.slots}


def constant_tables(torch: Layer, mindspore: Layer) -> list[str]:
    """Return the names of constant arrays that only one of two paired layers stores."""
    return [
        slot.name
        for layer, other in ((torch, mindspore), (mindspore, torch))
        for key, slot in layer.slots.items()
        if key not in _compared(layer, other)
    ]


def squeezed(shape: Shape) -> Shape:
    """Return a shape without axes of size 1."""
    return tuple(size for size in shape if size != 1)


def mismatch(torch: Layer, mindspore: Layer, writable: str = "") -> str:
    """Return the reason why one layer cannot take the other's arrays; empty if it can.

    Args:
        torch: PyTorch's layer.
        mindspore: MindSpore's layer.
        writable: the framework whose arrays will be written, so that an array that the other lacks can be made neutral.
    """
    kinds = {torch.kind, mindspore.kind}
    names = set(torch.slots) == set(mindspore.slots)
    pointwise = kinds == {"linear", "convolution"} and signature(torch) == signature(mindspore)
    if len(kinds) > 1 and not pointwise and not (OWN in kinds and names and torch.slots):
        return f"the kinds {torch.kind} and {mindspore.kind} differ"
    if kinds == {OWN} and not names:
        shapes = [
            [slot.shape for slot in _compared(*both).values()] for both in ((torch, mindspore), (mindspore, torch))
        ]
        if [squeezed(s) for s in shapes[0]] != [squeezed(s) for s in shapes[1]]:
            return f"the arrays have shapes {sorted(shapes[0])} and {sorted(shapes[1])}"
        return ""
    for name, own, other in _keys(torch, mindspore):
        if not own or not other:
            layer, side = (torch, "torch") if own else (mindspore, "mindspore")
            if not _can_be_neutral(layer.kind, name, layer.slots[name], writable == side):
                return _explain_absence(torch.kind, name, has_torch=bool(own))
        elif squeezed(torch.slots[own].shape) != squeezed(mindspore.slots[other].shape):
            return (
                f"{name} has shape {torch.slots[own].shape} in PyTorch and {mindspore.slots[other].shape} in MindSpore"
            )
    return ""


def _can_be_neutral(kind: str, name: str, slot: Slot, writable: bool) -> bool:
    """Return whether a layer without this array can compute the same as one with it."""
    known = name == "bias" or (kind.endswith(" norm") and name in _NORM_SLOTS)
    statistics = name.startswith("running_")  # a layer without them uses those of the batch
    return known and (slot.neutral or writable or statistics)


def _explain_absence(kind: str, name: str, has_torch: bool) -> str:
    with_, without = ("PyTorch", "MindSpore") if has_torch else ("MindSpore", "PyTorch")
    text = f"{with_} has a {name} and {without} does not"
    if (kind, name) in _REMEDIES:
        own, other = _REMEDIES[kind, name]
        text += f" (set by {own} in PyTorch and {other} in MindSpore, whose defaults differ)"
    return text


def signature(layer: Layer) -> tuple[Any, ...]:
    """Return a key that is equal for layers that may match; arrays that can be absent do not count."""
    kind = "convolution" if layer.kind == "linear" else layer.kind
    if kind.endswith(" norm"):
        return (kind, next((math.prod(slot.shape) for slot in layer.slots.values()), 0))
    if kind != OWN and "weight" in layer.slots:
        return (kind, squeezed(layer.slots["weight"].shape))
    return (kind, *sorted(squeezed(slot.shape) for slot in layer.slots.values() if slot.trainable or kind != OWN))


def merge(layers: Sequence[Layer], others: Sequence[Layer]) -> list[Layer]:
    """Return the layers with those joined whose arrays together are those of one of the others, such as q, k and v."""
    have = [signature(layer) for layer in others]
    for layer in layers:
        if signature(layer) in have:
            have.remove(signature(layer))
    found: list[Layer] = []
    taken: set[str] = set()
    for index, layer in enumerate(layers):
        if layer.name in taken:
            continue
        groups = (group for group in _groups(layers, index, others) if not taken & {part.name for part in group})
        joined = next((m for group in groups if (m := _join(group)) is not None and signature(m) in have), None)
        found.append(joined or layer)
        if joined is not None:
            have.remove(signature(joined))
            taken |= {part.name for part in joined.parts}
    return found


def _groups(layers: Sequence[Layer], index: int, others: Sequence[Layer]) -> Iterator[Sequence[Layer]]:
    """Yield the groups that may be joined with a layer: query, key and value by name, or else neighbors."""
    role, place = _role(layers[index].name)
    if role:
        by_role = {r: layer for layer in reversed(layers) for r, where in [_role(layer.name)] if where == place}
        shared = any(re.search("qk(?!v)", layer.name.rpartition(".")[2]) for layer in others)
        for group in ("qkv", "qk" if shared else "kv"):
            if role in group and set(group) <= set(by_role):
                yield [by_role[r] for r in group]
        return
    for count in (3, 2):
        near = layers[index : index + count]
        same = {layer.name.rpartition(".")[0] for layer in near}
        if len(near) == count and len(same) == 1 and not any(_role(layer.name)[0] for layer in near):
            yield near


def _role(name: str) -> tuple[str, str]:
    """Return "q", "k" or "v" and the rest of the name for a layer such as "q_proj", "toKey" or "wv"; or "" and ""."""
    plain = re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()
    found = list(_ROLE.finditer(plain))
    if not found:
        return "", ""
    return found[-1][1][0], plain[: found[-1].start(1)] + "*" + plain[found[-1].end(1) :]


def _join(layers: Sequence[Layer]) -> MergedLayer | None:
    first = layers[0]
    alike = len({(layer.kind, *layer.slots) for layer in layers}) == 1
    if not alike or first.kind not in ("linear", "convolution"):
        return None
    if len({layer.slots[key].shape[1:] for layer in layers for key in ("weight",) if key in layer.slots}) > 1:
        return None
    slots = {
        key: Slot(
            ", ".join(layer.slots[key].name for layer in layers),
            (sum(layer.slots[key].shape[0] for layer in layers), *slot.shape[1:]),
            all(layer.slots[key].trainable for layer in layers),
        )
        for key, slot in first.slots.items()
    }
    return MergedLayer(", ".join(layer.name for layer in layers), first.kind, slots, tuple(layers))


def convert(arrays: Sequence[Array], slots: Sequence[Slot]) -> list[Array]:
    """Return arrays of one framework in the shapes of the other's: joined along the first axis, then split.

    Example:
        >>> import numpy as np
        >>> from maam.backend.adapter import Slot
        >>> whole = np.arange(6.0).reshape(3, 2, 1, 1)
        >>> [part.tolist() for part in convert([whole], [Slot("q", (1, 2), True), Slot("k", (2, 2), True)])]
        [[[0.0, 1.0]], [[2.0, 3.0], [4.0, 5.0]]]
    """
    if len(arrays) == len(slots):
        return [array.reshape(slot.shape) for array, slot in zip(arrays, slots, strict=True)]
    flat = np.concatenate([array.ravel() for array in arrays])
    ends = np.cumsum([math.prod(slot.shape) for slot in slots])
    return [part.reshape(slot.shape) for part, slot in zip(np.split(flat, ends[:-1]), slots, strict=True)]


def explain_mismatch(
    torch: Sequence[Layer], mindspore: Sequence[Layer], writable: str, wrong: Sequence[Pair] = ()
) -> str:
    """Return an error message for two lists of layers that cannot be paired.

    Args:
        torch: PyTorch's layers.
        mindspore: MindSpore's layers.
        writable: as in `mismatch`.
        wrong: the pairs that do not match in the closest pairing of all layers. If there are none, or if they are more
            than half of the layers, the message shows the first difference of the lists.
    """
    counts = f"PyTorch has {len(torch)} layers with weights, MindSpore {len(mindspore)}"
    if wrong and len(wrong) <= len(torch) // 2:
        first = wrong[0]
        reason = mismatch(*first, writable)
        where = f"PyTorch's {first.torch} does not match MindSpore's {first.mindspore}: {reason}"
        more = f" ({len(wrong)} such pairs)" if len(wrong) > 1 else ""
        return f"the models cannot be paired: {counts}; {where}{more}; {_HELP}"
    keys = [[exact_signature(layer) for layer in layers] for layers in (torch, mindspore)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    codes = [code for code in matcher.get_opcodes() if code[0] != "equal"]
    tag, i1, i2, j1, j2 = codes[0] if codes else ("replace", 0, 1, 0, 1)
    before = f" after {torch[i1 - 1].name!r} (MindSpore: {mindspore[j1 - 1].name!r})," if i1 and j1 else ""
    if tag == "delete":
        where = f"PyTorch's {_first_layers(torch[i1:i2])} has no counterpart in MindSpore"
    elif tag == "insert":
        where = f"MindSpore's {_first_layers(mindspore[j1:j2])} has no counterpart in PyTorch"
    else:
        reason = mismatch(torch[i1], mindspore[j1], writable) or "the layers after them differ"
        where = f"PyTorch's {torch[i1]} does not match MindSpore's {mindspore[j1]}: {reason}"
    return f"the models cannot be paired: {counts};{before} {where}; {_HELP}"


def exact_signature(layer: Layer) -> tuple[str, ...]:
    """Return a key that is equal for layers with the same arrays."""
    shapes = {name: squeezed(slot.shape) for name, slot in layer.slots.items()}
    return (layer.kind, *(f"{'' if layer.kind == OWN else name}{shape}" for name, shape in sorted(shapes.items())))


def _first_layers(layers: Sequence[Layer]) -> str:
    more = len(layers) - _SHOWN
    text = ", ".join(str(layer) for layer in layers[:_SHOWN])
    return f"{text} and {more} more" if more > 0 else text
