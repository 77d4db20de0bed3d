"""Why two layers, or two lists of layers, do not fit, and what would help."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from maam.porting.half import OWN, Layer, Slot

_HELP = (
    "give both models the same layers, say which layer stands for which by names={PyTorch's: MindSpore's} (--names), "
    "or leave out what has no counterpart by skip=(...) (--skip)"
)
_CONTEXT = 2


def differences(torch: Layer, mindspore: Layer) -> str:
    """Why one layer cannot take the other's arrays; empty where it can."""
    if torch.kind != mindspore.kind:
        return f"a {torch.kind} is no {mindspore.kind}"
    own, other = torch.slots, mindspore.slots
    if torch.kind == OWN and set(own) != set(other):
        shapes = [sorted(slot.shape for slot in slots.values()) for slots in (own, other)]
        ordered = [[slot.shape for slot in slots.values()] for slots in (own, other)]
        return "" if ordered[0] == ordered[1] else f"arrays of shapes {shapes[0]} and {shapes[1]}"
    for name in [*own, *other]:
        if name not in own or name not in other:
            return _absent(torch.kind, name, has_torch=name in own)
        if not same_shape(torch.kind, own[name], other[name]):
            return f"{name} is {own[name].shape} and {other[name].shape}"
    return ""


def same_shape(kind: str, torch: Slot, mindspore: Slot) -> bool:
    """Whether the shapes are the same; MindSpore's convolution in one dimension has one of size 1 besides."""
    if torch.shape == mindspore.shape:
        return True
    one = "convolution" in kind and len(torch.shape) == 3 and len(mindspore.shape) == 4
    return one and mindspore.shape == (*torch.shape[:2], 1, torch.shape[2])


def explain_mismatch(torch: Sequence[Layer], mindspore: Sequence[Layer]) -> str:
    """Where two lists of layers part, and what would help."""
    keys = [[_signature(layer) for layer in layers] for layers in (torch, mindspore)]
    matcher = difflib.SequenceMatcher(None, keys[0], keys[1], autojunk=False)
    tag, i1, i2, j1, j2 = next(code for code in matcher.get_opcodes() if code[0] != "equal")
    counts = f"PyTorch has {len(torch)} layers with weights, MindSpore {len(mindspore)}"
    before = f" after {torch[i1 - 1].name!r} (MindSpore: {mindspore[j1 - 1].name!r})" if i1 and j1 else ""
    if tag == "delete":
        where = f"{_some(torch[i1:i2])} of PyTorch has no counterpart in MindSpore"
    elif tag == "insert":
        where = f"{_some(mindspore[j1:j2])} of MindSpore has no counterpart in PyTorch"
    else:
        where = f"{torch[i1]} of PyTorch meets {mindspore[j1]} of MindSpore: {differences(torch[i1], mindspore[j1])}"
    return f"the models cannot be matched: {counts};{before} {where}; {_HELP}"


def _signature(layer: Layer) -> tuple[str, ...]:
    """Equal for layers that fit."""
    wide = "convolution" in layer.kind
    shapes = {name: slot.shape for name, slot in layer.slots.items()}
    shapes = {n: (*s[:2], 1, s[2]) if wide and len(s) == 3 else s for n, s in shapes.items()}
    return (layer.kind, *(f"{'' if layer.kind == OWN else name}{shape}" for name, shape in sorted(shapes.items())))


def _some(layers: Sequence[Layer]) -> str:
    more = len(layers) - _CONTEXT
    text = ", ".join(str(layer) for layer in layers[:_CONTEXT])
    return f"{text} and {more} more" if more > 0 else text


_REMEDIES: Mapping[tuple[str, str], tuple[str, str]] = {
    ("convolution", "bias"): ("bias=", "has_bias="),
    ("transposed convolution", "bias"): ("bias=", "has_bias="),
    ("linear", "bias"): ("bias=", "has_bias="),
}


def _absent(kind: str, name: str, has_torch: bool) -> str:
    with_, without = ("PyTorch", "MindSpore") if has_torch else ("MindSpore", "PyTorch")
    text = f"{name} is there in {with_} and absent in {without}"
    if (kind, name) in _REMEDIES:
        own, other = _REMEDIES[kind, name]
        text += f" (set by {own} in PyTorch and {other} in MindSpore, whose defaults differ)"
    elif name.startswith("running_") and not has_torch:
        text += " (track_running_stats=False in PyTorch)"
    return text
