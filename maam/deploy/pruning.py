"""Pruning: removal of branches with a small fusion weight and of channels with a small batch norm scale."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from maam._io import check_target
from maam.errors import DeploymentError
from maam.fusion.rewrite import Part, branch_weights
from maam.spec import (
    Activation,
    AvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    GlobalPool,
    Identity,
    Linear,
    MaxPool2d,
    Model,
    Node,
    Parallel,
    Sequential,
    Unflatten,
)
from maam.spec.fields import plain_number
from maam.weights import match, write_weights
from maam.weights.exchange import PathLike, read_whole
from maam.weights.file import check_suffix

Array = np.ndarray[Any, Any]
Path = tuple[str, ...]
Leaf = tuple[Path, Part]
_PASSING = (AvgPool2d, Dropout, Flatten, Identity, MaxPool2d, Unflatten)


class Pruned(NamedTuple):
    """The result of `prune_file`.

    Attributes:
        spec: the pruned spec.
        parameters: the number of parameters before and after.
        macs: the multiply-accumulates of one input before and after; 0 for a layer, which has no input size.

    Example:
        >>> from maam import preset
        >>> from maam.deploy import Pruned
        >>> Pruned(preset("maam_digits"), (18_000, 9_000), (0, 0)).parameters
        (18000, 9000)
    """

    spec: Node
    parameters: tuple[int, int]
    macs: tuple[int, int]


def prune(
    spec: Node, weights: Mapping[str, Array] | None = None, *, min_weight: float = 0.0, channels: float = 0.0
) -> tuple[Node, dict[str, Array]]:
    """Return a smaller spec and its weights, without branches of small weight and channels of small scale.

    The outputs are close to those of the model before, and the result can be trained further.

    Args:
        spec: the architecture before fusion; pruning reads alpha and the scales of batch norm.
        weights: its arrays by canonical name.
        min_weight: drop branches with a softmax(alpha)_i below this value in [0, 1). The heaviest branch is kept.
        channels: the share of channels to drop in each layer, in [0, 1): those with the smallest batch norm scale. At
            least one channel is kept. Channels that other layers also use, such as those of a residual sum, are kept.

    Returns:
        The new spec, and its arrays by canonical name in their dtypes. Names do not change, even after a branch is
        dropped.

    Raises:
        DeploymentError: `spec` is not a spec or `weights` is missing, a share is outside [0, 1), or nothing would be
            dropped.
        WeightsError: the arrays do not fit the spec.

    Example:
        >>> from maam import preset
        >>> from maam.deploy import prune
        >>> from maam.spec import draw
        >>> spec = preset("maam_digits")
        >>> smaller, weights = prune(spec, draw(spec.parameters(), seed=0), channels=0.5)
        >>> spec.at("agents.0.conv1").out_channels, smaller.at("agents.0.conv1").out_channels
        (16, 8)
    """
    if not isinstance(spec, Node) or weights is None:
        given = "a spec alone" if isinstance(spec, Node) else f"an object of type {type(spec).__name__}"
        raise DeploymentError(
            f"prune: expected a spec and its weights, got {given}; to prune a weights file, use maam.deploy.prune_file"
        )
    min_weight, channels = _check_share("min_weight", min_weight), _check_share("channels", channels)
    arrays, _ = match(spec, weights, source="weights")
    part = prune_branches(Part(spec, {n: np.asarray(a) for n, a in arrays.items()}), min_weight)
    part = prune_channels(part, channels)
    if part.node.num_parameters == spec.num_parameters:
        raise DeploymentError(
            f"nothing to prune with min_weight={min_weight} and channels={channels}: no branch has a smaller weight, "
            "and no layer with a batch norm has enough channels; pass larger values, and a model that is not fused"
        )
    return part.node, {p.name: part.arrays[p.name] for p in part.node.parameters()}


def _check_share(name: str, value: Any) -> float:
    number = plain_number(value)
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not 0 <= number < 1:
        raise DeploymentError(f"{name}: expected a number in [0, 1), got {value!r}")
    return number


def prune_file(
    src: PathLike, dst: PathLike, *, min_weight: float = 0.0, channels: float = 0.0, overwrite: bool = False
) -> Pruned:
    """Write the pruned form of a weights file.

    Args:
        src: a weights file.
        dst: the weights file to write.
        min_weight: the smallest weight of a branch, as in `prune`.
        channels: the share of channels to drop, as in `prune`.
        overwrite: whether to replace an existing file.

    Raises:
        DeploymentError: an argument is out of range, nothing would be dropped, or `dst` exists or cannot be written.
        WeightsError: `src` is missing or broken, or `dst` has the suffix of another format.

    Example:
        >>> import os, tempfile
        >>> from maam import reference
        >>> from maam.deploy import prune_file
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     src, dst = os.path.join(folder, "a.safetensors"), os.path.join(folder, "b.safetensors")
        ...     reference.save_weights(reference.build("maam_digits", seed=0), src)
        ...     found = prune_file(src, dst, channels=0.25)
        >>> found.parameters[1] < found.parameters[0]
        True
    """
    check_suffix(dst)
    check_target(dst, overwrite=overwrite)
    before, arrays = read_whole(src)
    after, kept = prune(before, arrays, min_weight=min_weight, channels=channels)
    write_weights(dst, after, kept)
    macs = (before.macs(before.input_shape), after.macs(before.input_shape)) if isinstance(before, Model) else (0, 0)
    return Pruned(after, (before.num_parameters, after.num_parameters), macs)


def prune_branches(part: Part, least: float) -> Part:
    """Drop every branch, at any depth, with a softmax(alpha)_i below `least`, except the heaviest.

    The weights of the kept branches add up to 1 again.
    """
    parts = {name: prune_branches(child, least) for name, child in part.parts.items()}
    if not (isinstance(part.node, Parallel) and part.node.merge == "softmax"):
        return part.with_parts(parts) if parts else part
    weights = branch_weights(part)
    kept = [index for index, weight in enumerate(weights) if weight >= least or index == int(weights.argmax())]
    names = [list(parts)[index] for index in kept]
    arrays = {**part.arrays, "alpha": part.arrays["alpha"][kept]}
    return Part(part.node, arrays).with_parts({name: parts[name] for name in names})


class _Run(NamedTuple):
    """The layers from a convolution to the layer that takes its channels, as indices into the leaves."""

    source: int
    norm: int
    between: tuple[int, ...]
    target: int


def prune_channels(part: Part, share: float) -> Part:
    """Drop a share of the channels between two layers of a chain, at any depth: those with the smallest |scale|.

    Such channels come from a convolution with a batch norm, pass through activations, pooling and depthwise
    convolutions, and end in a convolution or a linear layer. No other layer uses them.
    """
    if not part.parts:
        return part
    if not isinstance(part.node, Sequential):
        return part.with_parts({name: prune_channels(child, share) for name, child in part.parts.items()})
    leaves = [(path, prune_channels(leaf, share)) for path, leaf in _leaves(part)]
    paths = [path for path, _ in leaves]
    found = dict(leaves)
    for run in _runs([leaf for _, leaf in leaves]):
        kept = _kept_channels(found[paths[run.norm]], share)
        for index in (run.source, run.norm, *run.between):
            found[paths[index]] = _with_outputs(found[paths[index]], kept)
        scales = len(leaves[run.norm][1].arrays["weight"])
        found[paths[run.target]] = _with_inputs(found[paths[run.target]], kept, scales)
    return _rebuilt(part, found)


def _leaves(part: Part, path: Path = ()) -> Iterator[Leaf]:
    """Yield the layers of a chain in running order; inner chains are opened, other containers count as one layer."""
    for name, child in part.parts.items():
        if type(child.node) in (Sequential, Model):
            yield from _leaves(child, (*path, name))
        else:
            yield (*path, name), child


def _rebuilt(part: Part, leaves: dict[Path, Part], path: Path = ()) -> Part:
    parts = {}
    for name, child in part.parts.items():
        below = (*path, name)
        parts[name] = leaves[below] if below in leaves else _rebuilt(child, leaves, below)
    return part.with_parts(parts) if parts else part


def _runs(leaves: Sequence[Part]) -> Iterator[_Run]:
    for source, leaf in enumerate(leaves):
        if isinstance(leaf.node, Conv2d) and leaf.node.groups == 1:
            run = _run_from(source, leaves)
            if run is not None:
                yield run


def _run_from(source: int, leaves: Sequence[Part]) -> _Run | None:
    norm = source + 1
    between: list[int] = []
    if norm >= len(leaves) or not isinstance(leaves[norm].node, BatchNorm2d):
        return None
    for index in range(norm + 1, len(leaves)):
        node = leaves[index].node
        if isinstance(node, Linear) or (isinstance(node, Conv2d) and node.groups == 1):
            return _Run(source, norm, tuple(between), index)
        depthwise = isinstance(node, Conv2d) and node.groups == node.in_channels == node.out_channels
        if depthwise or isinstance(node, BatchNorm2d):
            if node.in_channels_expected != leaves[norm].node.in_channels_expected:  # flattened in between
                return None
            between.append(index)
        elif not (isinstance(node, _PASSING) or _is_elementwise(node)):
            return None
    return None


def _is_elementwise(node: Any) -> bool:
    if isinstance(node, GlobalPool):
        return bool(node.axis == "spatial")
    return isinstance(node, Activation) and node.function != "softmax"


def _kept_channels(norm: Part, share: float) -> Array:
    """Return the indices of the channels to keep, ascending."""
    scales = np.abs(norm.arrays["weight"])
    dropped = math.floor(round(share * len(scales), 9))  # 0.29 * 100 is below 29 in binary
    count = max(1, len(scales) - dropped)
    return np.sort(np.argsort(-scales, kind="stable")[:count])


def _with_outputs(part: Part, kept: Array) -> Part:
    arrays = {name: array[kept] for name, array in part.arrays.items()}
    count = len(kept)
    if isinstance(part.node, BatchNorm2d):
        return Part(part.node.replace(num_features=count), arrays)
    assert isinstance(part.node, Conv2d)
    grouped = {"in_channels": count, "groups": count} if part.node.groups > 1 else {}
    return Part(part.node.replace(out_channels=count, **grouped), arrays)


def _with_inputs(part: Part, kept: Array, channels: int) -> Part:
    """Return a layer without the inputs of dropped channels; a flattened map has several inputs for each channel."""
    weight = part.arrays["weight"]
    each = weight.shape[1] // channels
    columns = (kept[:, None] * each + np.arange(each)).reshape(-1)
    field = "in_features" if isinstance(part.node, Linear) else "in_channels"
    return Part(part.node.replace(**{field: len(columns)}), {**part.arrays, "weight": weight[:, columns]})
