"""Integrity check: whether the layers of a built model are still those of its spec.

Layers are public attributes, so users replace them and change their settings. Every container keeps a fingerprint of
each layer that its spec describes. The check compares the fingerprints with the present layers, and refuses to save or
fuse a model whose spec no longer describes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from maam.errors import MaamError
from maam.spec.node import is_within, join_path


class SpecContainer:
    """Base of the container classes of all frameworks, with a spec and the fingerprints of its layers.

    Attributes:
        spec: the node. If the spec of a container inside this one changes, this one is updated.
        built: the fingerprint of each layer as the spec describes it, by name.
        joins_branches: whether `reparameterize` joins branches that begin alike; False if the output of each branch is
            needed.
    """

    built: dict[str, str]
    joins_branches = True
    _spec: Any
    _method: ClassVar[str]
    """The name of the framework's method that computes the output."""

    def _layers(self) -> Mapping[str, Any]:
        """Return the present layers by name."""
        raise NotImplementedError

    def _fingerprint(self, layer: Any) -> str:
        """Return a text that identifies what a layer computes: its class and settings."""
        raise NotImplementedError

    def _describe_combination(self) -> str:
        """Return how the branches are merged, or the formula of a graph; empty for other nodes."""
        if self._spec.kind == "graph":
            return str(self._spec.formula)
        return f"merge={self._spec.merge!r}" if self._spec.kind == "parallel" else ""

    @property
    def spec(self) -> Any:
        """The node, with the present nodes of the containers inside."""
        nodes = self._spec.nodes
        inner = {name: layer for name, layer in self._layers().items() if isinstance(layer, SpecContainer)}
        changed = {name: one.spec for name, one in inner.items() if name in nodes and one.spec is not nodes[name]}
        if changed:
            self._spec = self._spec.with_nodes({**nodes, **changed})
        return self._spec

    @spec.setter
    def spec(self, node: Any) -> None:
        """Set the node; the caller must ensure that the present layers match it."""
        self._spec = node
        layers = self._layers()
        self.built = {name: self._fingerprint(layers[name]) for name in node.nodes}


def check_integrity(model: Any, action: str, error: type[MaamError], skip: Sequence[str] = ()) -> None:
    """Raise `error` if a layer of the model was replaced, or its settings were changed.

    A container that replaced another one passes if its layers match its own spec, because the spec of the model is
    updated. A model that is a single layer passes.

    Args:
        model: a model that maam built.
        action: the action that is refused; the message starts with it.
        error: the exception to raise.
        skip: canonical names of layers that may differ.
    """
    for path, was, now in _changes(model, ""):
        if is_within(path, skip):
            continue
        raise error(
            f"{action}: layer {path!r} was {was} and is {now}, so the spec no longer describes it; build a model "
            f"from a spec that has this layer ({_remedy(now)}), or use the framework's own functions"
        )


def check_methods(model: Any, action: str, error: type[MaamError], *, root: bool = True) -> None:
    """Raise `error` if a user's subclass of a container overrides the method that computes.

    Args:
        model: a model that maam built.
        action: the action that is refused; the message starts with it.
        error: the exception to raise.
        root: whether to check the class of the model itself, besides the containers inside it.
    """
    for path, container in _containers(model, ""):
        if not path and not root:
            continue
        method = container._method
        owner = next(kind for kind in type(container).__mro__ if method in vars(kind))
        if not owner.__module__.startswith("maam."):
            raise error(
                f"{action}: {owner.__name__}{f' at {path!r}' if path else ''} overrides {method}(), which the spec "
                "does not describe; put the layer inside your own module, or use the framework's own functions"
            )


def _containers(model: Any, path: str) -> Iterator[tuple[str, SpecContainer]]:
    """Yield the model and all containers inside it, each with its path."""
    if isinstance(model, SpecContainer):
        yield path, model
        layers = model._layers()
        for name in model.built:
            yield from _containers(layers.get(name), join_path(path, name))


def _changes(model: Any, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield the path, the old and the new fingerprint of each layer that differs."""
    if not isinstance(model, SpecContainer):
        return
    layers = model._layers()
    for name, was in model.built.items():
        layer = layers.get(name)
        if isinstance(layer, SpecContainer):
            yield from _changes(layer, f"{prefix}{name}.")
        elif (now := "absent" if layer is None else model._fingerprint(layer)) != was:
            yield f"{prefix}{name}", was, now


def _remedy(now: str) -> str:
    if now.startswith("Parametrized"):
        return "or remove the parametrization: torch.nn.utils.parametrize.remove_parametrizations"
    return "load(path, num_classes=) replaces the last layer"
