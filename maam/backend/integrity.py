"""Whether a built model still is what its spec says: layers are public, and users put others in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from maam.errors import MaamError

Children = Callable[[Any], Mapping[str, Any]]
Words = Callable[[Any], str]


def check_conforms(
    model: Any,
    children: Children,
    words: Words,
    act: str,
    error: type[MaamError],
    skip: Sequence[str] = (),
) -> None:
    """Refuse to go by the spec of a model in which a layer was replaced, or its settings were changed.

    Containers put in place of others are followed: the spec above them has theirs.

    Args:
        model: a container, whose `built` says in words what its layers were; another layer is its own and passes.
        children: gives a container's layers by name.
        words: says what a layer is, by what the spec determines.
        act: what is refused.
        error: the exception to raise.
        skip: layers that may be others.
    """
    for path, was, now in _changes(model, children, words, ""):
        if any(path == layer or path.startswith(f"{layer}.") for layer in skip):
            continue
        raise error(
            f"{act}: layer {path!r} was {was} and is {now}, which the spec does not say; build a model from a spec "
            f"that has it ({_remedy(now)}), or go by the framework's own means"
        )


def check_method(
    model: Any, children: Children, method: str, act: str, error: type[MaamError], *, root: bool = True
) -> None:
    """Refuse to go by the spec of a model, or of what it holds, that computes by a method of a user's subclass.

    Args:
        model: as in `check_conforms`, as are `children`, `act` and `error`.
        children: of a container.
        method: the name of the framework's method that computes.
        act: what is refused.
        error: the exception to raise.
        root: whether the model itself counts, and not only what it holds.
    """
    for path, container in _containers(model, children, ""):
        if not path and not root:
            continue
        owner = next(kind for kind in type(container).__mro__ if method in vars(kind))
        if not owner.__module__.startswith("maam."):
            raise error(
                f"{act}: {owner.__name__}{f' at {path!r}' if path else ''} has a {method} of its own, which the spec "
                "does not say; put the layer into a module of yours instead, or go by the framework's own means"
            )


def _containers(model: Any, children: Children, path: str) -> Iterator[tuple[str, Any]]:
    """The model and all below that are containers, with their paths."""
    if hasattr(model, "built"):
        yield path, model
        for name in model.built:
            yield from _containers(children(model).get(name), children, f"{path}.{name}" if path else name)


def _changes(model: Any, children: Children, words: Words, start: str) -> Iterator[tuple[str, str, str]]:
    """Path, what was built and what is there now of each layer that differs."""
    for name, was in getattr(model, "built", {}).items():
        layer = children(model).get(name)
        if hasattr(layer, "built"):
            yield from _changes(layer, children, words, f"{start}{name}.")
        elif (now := "absent" if layer is None else words(layer)) != was:
            yield f"{start}{name}", was, now


def _remedy(now: str) -> str:
    if now.startswith("Parametrized"):
        return "or take the parametrization off: torch.nn.utils.parametrize.remove_parametrizations"
    return "load(path, num_classes=) replaces the last layer"
