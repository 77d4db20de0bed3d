"""Insertion of attention layers into the networks of timm, torchvision and MindCV, independent of the framework."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from maam._messages import nearest, one_line
from maam.backend.integrity import SpecContainer
from maam.backend.layers import check_keeps_shape, find_layer
from maam.errors import SpecError
from maam.spec import gct, input_rule
from maam.spec.inputs import example_shape


class InsertionPoint(NamedTuple):
    """A point of a block at which a layer can be inserted.

    Attributes:
        channels: the number of channels of the map at this point.
        current: the layer that is there; a new one replaces it. None for no layer.
        put: a function that inserts a layer here.
        added_in_place: whether the network adds to the output of the layer in place, as ResNets in PyTorch do.
    """

    channels: int
    current: Any
    put: Callable[[Any], None]
    added_in_place: bool = False

    @property
    def occupied(self) -> bool:
        """Whether a layer is there."""
        return self.current is not None


class LayerKinds(NamedTuple):
    """The layers of one framework.

    Attributes:
        by_name: the drop-in layer classes by lower-case name.
        base: their base class, whose objects have a `spec`.
        module: the framework's class of all modules.
        noun: the framework's word for a module, for error messages.
        blend: a function of a new layer and the layer that it replaces (None for the identity). It returns a layer
            that first computes the same as the replaced one, and can learn to compute the same as the new one.
        compute: a function from a module and a number of channels C to the shape of its output for a map (2, C, 8, 8),
            in eval mode.
    """

    by_name: Mapping[str, type]
    base: type
    module: type
    noun: str
    blend: Callable[[Any, Any], Any]
    compute: Callable[[Any, int], tuple[int, ...]]


class Insertion(NamedTuple):
    """What to insert, and where.

    Attributes:
        attention: a name, a layer class, or a function from a number of channels to a module.
        every_block: whether to use all points. False: if any point is occupied, only occupied points are used.
        identity_init: whether the network computes the same as before until it is trained.
        where: patterns of names of layers; a new layer follows each layer that matches. None for the insertion points
            that are known for the library.
    """

    attention: Any
    every_block: bool = False
    identity_init: bool = False
    where: str | Sequence[str] | None = None


def matching(names: Iterable[str], where: str | Sequence[str], network: object) -> list[str]:
    """Return the names that match one of the shell wildcards `where`.

    Raises:
        SpecError: no name matches, or `where` is neither a string nor a list of strings.
    """
    patterns = (where,) if isinstance(where, str) else where
    if not isinstance(patterns, (list, tuple)) or not all(isinstance(pattern, str) for pattern in patterns):
        raise SpecError(f"where: expected a pattern such as 'layer*.*.bn2', or a list of patterns, got {where!r}")
    known = [name for name in names if name]
    found = [name for name in known if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        close = nearest(str(next(iter(patterns), "")), known, cutoff=0)
        hint = f"; its layers have names such as {close[0]!r}" if close else ""
        raise SpecError(f"where: no layer of {type(network).__name__} matches {where!r}{hint}")
    return found


def channels_after(name: str, layer: Any, layers_inside: Callable[[Any], Iterable[Any]]) -> int:
    """Return the number of channels of the output of a layer.

    Args:
        name: the name of the layer, for the error message.
        layer: the layer; the last convolution, batch norm or layer of maam inside determines the number.
        layers_inside: a function that returns the layers directly inside a layer, in the order of execution and without
            inserted attention.

    Raises:
        SpecError: no layer determines the number.
    """
    if (found := _find_channels(layer, layers_inside)) is None:
        raise SpecError(
            f"where: the number of channels after {name!r} is unknown, because it has no convolution and no batch "
            "norm; match a layer that has one"
        )
    return found


def _find_channels(layer: Any, layers_inside: Callable[[Any], Iterable[Any]]) -> int | None:
    if isinstance(layer, SpecContainer):
        if input_rule(layer.spec).channels is None:  # such as SimAM, which keeps any number
            return None
        return int(layer.spec.output_shape(example_shape(layer.spec))[0])
    for inner in reversed(list(layers_inside(layer))):
        if (found := _find_channels(inner, layers_inside)) is not None:
            return found
    if "FrozenBatchNorm" in type(layer).__name__:
        return len(layer.weight)
    sizes = (getattr(layer, attribute, None) for attribute in ("num_features", "out_channels", "num_channels"))
    return next((size for size in sizes if isinstance(size, int)), None)


def check_is_free(name: str, around: Iterable[object]) -> None:
    """Raise `SpecError` if a layer belongs to a model or layer of maam.

    Args:
        name: the name of the layer, for the error message.
        around: the layers that contain it.
    """
    if any(isinstance(one, SpecContainer) for one in around):
        raise SpecError(
            f"where: {name!r} belongs to a layer or model of maam, whose spec determines its layers; match a layer "
            "outside it, or build the model with attention=NAME"
        )


def check_network(network: object, module: type, name: str) -> None:
    """Raise `SpecError` unless a network is an object of the class `module` with this `name`."""
    if not isinstance(network, module):
        raise SpecError(
            f"insert_attention: expected a {name}, got an object of type {type(network).__name__}; pass the network "
            "itself; create_model(NAME, attention=...) builds one by its name"
        )


def inside(names: Iterable[str], ancestors: Iterable[str]) -> set[str]:
    """Return the names of the modules inside others: those that start with the name of an ancestor and a dot."""
    starts = tuple(f"{one}." if one else "" for one in ancestors)
    return {name for name in names if name.startswith(starts)}


def make_layers(
    network: object, points: Sequence[InsertionPoint], insertion: Insertion, kinds: LayerKinds, known: str
) -> list[tuple[InsertionPoint, Any]]:
    """Make a layer for each insertion point; the network is not changed.

    Args:
        network: the network that has the points, for error messages.
        points: all insertion points of the network.
        insertion: what to insert.
        kinds: the layers of the framework.
        known: the networks that have insertion points, for error messages.

    Returns:
        The points in use, each with its layer.

    Raises:
        SpecError: `points` is empty, no layer has the name `attention`, or the function `attention` returns an object
            that is not a module or a layer that changes the shape.
    """
    if not points:
        raise SpecError(
            f"{type(network).__name__}: found no block for an attention layer; expected {known}; for other networks "
            "pass where='...', the names of the layers after which attention goes"
        )
    occupied = [point for point in points if point.occupied]
    chosen = occupied if occupied and not (insertion.every_block or insertion.where) else points
    make = find_layer(insertion.attention, kinds.by_name, kinds.module)
    made = []
    for point in chosen:
        layer = make(point.channels)
        if not isinstance(layer, kinds.module):
            raise SpecError(
                f"attention: expected a function that returns a {kinds.noun}, got one that returns a "
                f"{type(layer).__name__}"
            )
        if isinstance(layer, kinds.base):
            check_keeps_shape(type(layer).__name__, layer.spec, point.channels)  # type: ignore[attr-defined]
        else:
            _check_computed_shape(layer, point.channels, kinds)
        is_blended = insertion.identity_init and not (point.current is None and _starts_as_identity(layer))
        made.append((point, kinds.blend(layer, point.current) if is_blended else layer))
    return made


def _starts_as_identity(layer: Any) -> bool:
    """Return whether a new layer returns its input, in which case all gradients of a blend with it would be 0."""
    return getattr(type(layer), "composite", None) is gct


def _check_computed_shape(layer: Any, channels: int, kinds: LayerKinds) -> None:
    shape = (2, channels, 8, 8)
    try:
        found = kinds.compute(layer, channels)
    except Exception as error:  # the layer is the user's
        reason = one_line(error, 200)
        raise SpecError(
            f"attention: {type(layer).__name__} cannot compute a map {shape}: {type(error).__name__}: {reason}"
        ) from error
    if found != shape:
        raise SpecError(
            f"attention: expected a {kinds.noun} that keeps the shape of a map, but {type(layer).__name__} turns "
            f"{shape} into {found}"
        )
