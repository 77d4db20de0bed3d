"""Pruning: removal of branches with a small fusion weight and of channels with a small batch norm scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from maam._io import check_target
from maam.deploy.channels import Channels, prune_channels
from maam.errors import DeploymentError
from maam.fusion.part import Part
from maam.fusion.rewrite import branch_weights
from maam.spec import Model, Node, Parallel
from maam.spec.fields import plain_number
from maam.weights import match, write_weights
from maam.weights.exchange import PathLike, read_whole
from maam.weights.file import check_suffix

Array = np.ndarray[Any, Any]


class Pruned(NamedTuple):
    """The result of `prune_file`.

    Attributes:
        spec: the pruned spec.
        parameters: the number of parameters before and after.
        macs: the multiply-accumulates of one input before and after; 0 for a layer, which has no input size.
        channels: how many channels were removed, and why others were kept.

    Example:
        >>> from maam import preset
        >>> from maam.deploy import Channels, Pruned
        >>> Pruned(preset("maam_digits"), (18_000, 9_000), (0, 0), Channels(200, 90, 10, 64)).parameters
        (18000, 9000)
    """

    spec: Node
    parameters: tuple[int, int]
    macs: tuple[int, int]
    channels: Channels


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
            least one channel is kept. Channels that several layers use, such as those of a residual sum or a gate, are
            dropped in all of them; `maam.deploy.channels` says how.

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
    node, kept, _ = _prune(spec, arrays, min_weight, channels)
    return node, kept


def _prune(
    spec: Node, arrays: Mapping[str, Array], min_weight: float, channels: float
) -> tuple[Node, dict[str, Array], Channels]:
    part = prune_branches(Part(spec, {n: np.asarray(a) for n, a in arrays.items()}), min_weight)
    node, kept, counts = prune_channels(part.node, part.arrays, channels)
    if node.num_parameters == spec.num_parameters:
        raise DeploymentError(
            f"nothing to prune with min_weight={min_weight} and channels={channels}: no branch has a smaller weight, "
            "and no layer with a batch norm has enough channels; pass larger values, and a model that is not fused"
        )
    return node, {p.name: kept[p.name] for p in node.parameters()}, counts


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
    min_weight, channels = _check_share("min_weight", min_weight), _check_share("channels", channels)
    after, kept, counts = _prune(before, arrays, min_weight, channels)
    write_weights(dst, after, kept)
    macs = (before.macs(before.input_shape), after.macs(before.input_shape)) if isinstance(before, Model) else (0, 0)
    return Pruned(after, (before.num_parameters, after.num_parameters), macs, counts)


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
