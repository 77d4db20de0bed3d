"""The head of a preset's timm model: dropout in front of the logits, and layers taken away and put back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from maam.errors import SpecError
from maam.spec import Dropout, Identity, Model, Node, head
from maam.torch.containers import Container, instantiate

Layer = tuple[nn.Module, Node]


def with_dropout(spec: Model, p: float | None) -> Model:
    """`spec` with dropout of probability `p` in front of the layer that gives the logits; itself where `p` is 0.

    Raises:
        SpecError: `p` is no probability below 1, or the model has dropout there already.
    """
    if not p:
        return spec
    path, _, name = head(spec).rpartition(".")
    above = spec.at(path)
    if any(isinstance(node, Dropout) for node in above.nodes.values()):
        raise SpecError("drop_rate: the preset has dropout there already, by an option of its own; give one of the two")
    try:
        layer = Dropout(p=p)
    except SpecError:
        raise SpecError(f"drop_rate: expected a number from 0 to below 1, got {p!r}") from None
    index = list(above.nodes).index(name)
    nodes = list(above.nodes.items())
    return cast(
        Model, _replaced(spec, path, above.with_nodes(dict([*nodes[:index], ("dropout", layer), *nodes[index:]])))
    )


def put(model: Container, path: str, layer: Layer) -> Layer:
    """Put a module and its node at a path; returns what stood there. The specs above follow."""
    above, _, name = path.rpartition(".")
    parent: Any = model.get_submodule(above)
    old = parent._modules[name], parent.spec.nodes[name]
    parent.put(name, *layer)
    return old


def take_away(model: Container, paths: Sequence[str]) -> dict[str, Layer]:
    """Put identities at `paths`, which end the chain; returns what `put_back` takes."""
    return {path: put(model, path, (instantiate(Identity()), Identity())) for path in reversed(paths)}


def put_back(model: Container, layers: dict[str, Layer]) -> None:
    """Undo `take_away`, on the model's device, in its dtype and mode."""
    like = next(model.parameters())
    for path, (module, node) in reversed(layers.items()):
        put(model, path, (module.to(device=like.device, dtype=like.dtype).train(model.training), node))


def _replaced(node: Node, path: str, layer: Node) -> Node:
    if not path:
        return layer
    name, _, rest = path.partition(".")
    return node.with_nodes({**node.nodes, name: _replaced(node.nodes[name], rest, layer)})
