"""Initial weights that a recipe changes: whitening of images, and convolutions that start as the identity.

NumPy computes them before the first step, so that they are the same in every framework.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from maam._config import name_hint
from maam.data.mixing import Batches
from maam.errors import RecipeError
from maam.spec import BatchNorm2d, Conv2d, Node, Parallel
from maam.spec.node import map_layers
from maam.training.recipe import Initialization

Array = np.ndarray[Any, Any]
WHITENING_IMAGES = 5000
WHITENING_EPS = 5e-4
"""The term added to the variances of whitened patches, relative to their mean, which limits the gain of noise."""
_LEAST_VARIANCE = 1e-12


def initialize(spec: Node, arrays: Mapping[str, Array], settings: Initialization, batches: Batches) -> dict[str, Array]:
    """Return initial weights with whitening and identity initialization.

    Args:
        spec: the model.
        arrays: its weights as they were drawn, float32, by canonical name.
        settings: the convolutions to initialize.
        batches: the training batches; at most 5,000 images of their first epoch determine the whitening.

    Raises:
        RecipeError: a convolution is missing or not suitable, or the images are constant.
    """
    found = dict(arrays)
    for path in _matching(spec, settings.dirac):
        name = f"{path}.weight"
        found[name] = dirac(found[name], _groups(spec, path), _branch(spec, path))
    if settings.whiten is not None:
        conv = _first_conv(spec, settings.whiten)
        weight, bias = whiten(_images(batches), conv)
        found[f"{settings.whiten}.weight"] = weight
        if conv.bias:
            found[f"{settings.whiten}.bias"] = bias
    return found


def with_momentum(spec: Node, momentum: float | None) -> Node:
    """Return a spec in which all batch norms have a momentum, in PyTorch's sense; None changes nothing.

    Raises:
        RecipeError: there is no batch norm.

    Example:
        >>> from maam import spec
        >>> with_momentum(spec.preset("maam_digits"), 0.4).at("reduce.bn").momentum
        0.4
    """
    if momentum is None:
        return spec
    if not any(isinstance(node, BatchNorm2d) for _, node in spec.walk()):
        raise RecipeError("batch_norm_momentum: the network has no batch norm; remove it")
    return map_layers(spec, lambda node: node.replace(momentum=momentum) if isinstance(node, BatchNorm2d) else node)


def dirac(weight: Array, groups: int = 1, branch: int = 0) -> Array:
    """Return the weight of a convolution in which as many filters as possible pass one input channel unchanged.

    Of n filters for m channels, min(n, m) start as the identity; the others keep their values. In branch k of
    parallel branches, they are shifted by k min(n, m), so that different branches pass different channels.

    Args:
        weight: (out_channels, in_channels // groups, k, k), with an odd k.
        groups: the groups of the convolution.
        branch: the number of the branch.

    Example:
        >>> import numpy as np
        >>> from maam.training.initialization import dirac
        >>> dirac(np.zeros((2, 2, 3, 3), np.float32))[:, :, 1, 1].tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        >>> dirac(np.zeros((1, 2, 3, 3), np.float32), branch=1)[:, :, 1, 1].tolist()
        [[0.0, 1.0]]
    """
    weight = weight.copy()
    filters, channels, middle = len(weight) // groups, weight.shape[1], weight.shape[2] // 2
    index = np.arange(min(filters, channels))
    shifted = (branch * len(index) + index) % max(filters, channels)
    rows, columns = (shifted, index) if filters >= channels else (index, shifted)
    for group in range(groups):
        weight[group * filters + rows] = 0
        weight[group * filters + rows, columns, middle, middle] = 1
    return weight


def whiten(images: Iterable[Array], conv: Conv2d) -> tuple[Array, Array]:
    """Return the weight and the bias of a convolution that whitens patches of images.

    The filters are the eigenvectors of the patches' covariance with the largest eigenvalues, divided by the square root
    of the eigenvalue, each one followed by its negative in the second half. The bias subtracts the mean patch.

    Args:
        images: batches, float32 (B, C, H, W).
        conv: the convolution.

    Returns:
        Weight (out_channels, C, k, k) and bias (out_channels,), float32.

    Raises:
        RecipeError: all patches are equal.
    """
    count, total, products = 0, 0.0, 0.0
    for batch in images:
        views = sliding_window_view(batch, (conv.kernel_size, conv.kernel_size), axis=(2, 3))  # type: ignore[call-overload, unused-ignore]
        views = views[:, :, :: conv.stride, :: conv.stride]  # (B, C, H', W', k, k)
        patches = views.transpose(0, 2, 3, 1, 4, 5).reshape(-1, conv.in_channels * conv.kernel_size**2)
        wide = patches.astype(np.float64)
        count, total, products = count + len(wide), total + wide.sum(0), products + wide.T @ wide
    mean = np.asarray(total / count)
    covariance = products / count - np.outer(mean, mean)
    spread = np.trace(covariance) / len(mean)
    if not spread > _LEAST_VARIANCE:
        raise RecipeError(
            "initialization.whiten: the training images are constant, so there is nothing to whiten; check the images, "
            "or remove initialization.whiten"
        )
    variances, vectors = np.linalg.eigh(covariance)  # ascending; vectors in columns
    half = conv.out_channels // 2
    variances, vectors = variances[::-1][:half].clip(min=0), vectors.T[::-1][:half]
    signs = np.sign(vectors[np.arange(half), np.abs(vectors).argmax(1)])  # eigenvectors are unique up to the sign
    filters = vectors * (signs / np.sqrt(variances + WHITENING_EPS * spread))[:, None]
    both = np.concatenate([filters, -filters])
    shape = (conv.out_channels, conv.in_channels, conv.kernel_size, conv.kernel_size)
    return both.reshape(shape).astype(np.float32), (-both @ mean).astype(np.float32)


def _images(batches: Batches) -> Iterator[Array]:
    """Yield at most 5,000 training images of the first epoch in batches."""
    left = WHITENING_IMAGES
    for images, _ in batches.epoch(0):
        yield images[:left]
        left -= len(images)
        if left <= 0:
            return


def _first_conv(spec: Node, path: str) -> Conv2d:
    """Return the convolution to whiten.

    Raises:
        RecipeError: there is no such convolution, it is not the first layer, or it has a wrong number of filters.
    """
    field = "initialization.whiten"
    convs = [name for name, node in spec.walk() if isinstance(node, Conv2d)]
    if path not in convs:
        raise RecipeError(f"{field}: no convolution {path!r} in the model{name_hint(path, convs)}")
    if path != (first := next(name for name, node in spec.walk() if not node.nodes)):
        raise RecipeError(
            f"{field}: {path} is not the first layer of the model, which is {first}; only images can be whitened"
        )
    conv = spec.at(path)
    assert isinstance(conv, Conv2d)
    most = 2 * conv.in_channels * conv.kernel_size**2
    if conv.groups != 1 or conv.out_channels % 2 or conv.out_channels > most:
        raise RecipeError(
            f"{field}: {path} has {conv.out_channels} filters in {conv.groups} groups for patches of "
            f"{conv.in_channels}x{conv.kernel_size}x{conv.kernel_size}; expected one group and an even number of at "
            f"most {most} filters"
        )
    return conv


def _matching(spec: Node, patterns: Iterable[str]) -> list[str]:
    """Return the paths of the convolutions that shell wildcards match.

    Raises:
        RecipeError: a pattern matches no convolution, or one with an even kernel size.
    """
    convs = {path: node for path, node in spec.walk() if isinstance(node, Conv2d)}
    found: list[str] = []
    for pattern in patterns:
        matched = [path for path in convs if fnmatchcase(path, pattern)]
        if not matched:
            raise RecipeError(f"initialization.dirac: {pattern!r} matches no convolution{name_hint(pattern, convs)}")
        found += matched
    for path in found:
        if (size := convs[path].kernel_size) % 2 == 0:
            raise RecipeError(f"initialization.dirac: {path} has kernels of {size}x{size}; expected an odd size")
    return found


def _groups(spec: Node, path: str) -> int:
    conv = spec.at(path)
    assert isinstance(conv, Conv2d)
    return conv.groups


def _branch(spec: Node, path: str) -> int:
    """Return the number of the innermost parallel branch that contains a layer; 0 outside of branches."""
    node, branch = spec, 0
    for name in path.split("."):
        if isinstance(node, Parallel):
            branch = list(node.nodes).index(name)
        node = node.nodes[name]
    return branch
