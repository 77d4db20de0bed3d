"""Attention maps: how much the gates of a network keep of each position of an image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maam.errors import DataError
from maam.reference import ReferenceModel
from maam.spec import Model
from maam.training.evaluate import image_preparation
from maam.training.gates import gate_paths, share_kept
from maam.training.predict import check_images, classifier_of, image_paths
from maam.training.recipe import Recipe
from maam.training.run_dir import find_weights
from maam.training.sources import ReadOptions, list_images
from maam.weights.exchange import read_whole
from maam.weights.file import read_weights

Array = np.ndarray[Any, Any]
PathLike = str | os.PathLike[str]
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention maps of one image.

    Attributes:
        path: the image file.
        image: the image as the network gets it, (H, W, 3) or (H, W, 1), its values scaled to the range 0 to 1.
        maps: for each gate by its path in the network, (h, w), the share that it keeps of each position:
            sum_c |y_c| / sum_c |x_c| of its input x and output y. Where x is 0, it is the share of the whole map.

    Example:
        >>> import numpy as np
        >>> from maam.training import AttentionMaps
        >>> found = AttentionMaps("red.png", np.zeros((32, 32, 3)), {"gate": np.ones((8, 8))})
        >>> found.maps["gate"].shape
        (8, 8)
    """

    path: str
    image: Array
    maps: Mapping[str, Array]


def attention_maps(
    model: PathLike,
    files: Sequence[PathLike] | PathLike,
    *,
    recipe: Recipe | None = None,
    changes: Mapping[str, Any] | None = None,
) -> list[AttentionMaps]:
    """Return the attention maps of image files. The NumPy reference computes them.

    Args:
        model: a weights file, the folder of a run, or a preset with pretrained weights; the model must take RGB or gray
            images and have gates.
        files: image files, or folders, as in `predict_files`.
        recipe: as in `predict_files`.
        changes: as in `predict_files`.

    Returns:
        The maps of each image, in the order of `files`.

    Raises:
        DataError: the network has no gate.
        MaamError: the file, an image or the recipe does not fit.

    Example:
        >>> from PIL import Image
        >>> from maam import reference
        >>> from maam.training import attention_maps, read_recipe
        >>> options = {"attention": "coord", "width_multiplier": 0.25, "cifar": True}
        >>> reference.save_weights(reference.build("mobilenet_v2", seed=0, **options), "net.safetensors")
        >>> Image.new("RGB", (40, 32), "red").save("red.png")
        >>> (found,) = attention_maps("net.safetensors", "red.png", recipe=read_recipe("cifar10"))
        >>> found.image.shape, found.maps["backbone.stage1.unit1.cbamm"].shape
        ((32, 32, 3), (32, 32))
    """
    weights = find_weights(model)
    spec, arrays = read_whole(weights.path, np.dtype(np.float32))
    classifier = classifier_of(spec, weights.path)
    gates = _gates(classifier, model)
    images = image_preparation(classifier, weights, recipe, changes)
    check_images(classifier, images)
    paths = tuple(image_paths(files))
    batches = list_images(images, paths, spec, ReadOptions("reference", 0, "error"))
    network = ReferenceModel(spec, arrays)
    rows = [image for x, _ in batches.epoch(0) for image in np.asarray(x)]
    return [_maps_of(network, gates, path, image) for path, image in zip(paths, rows, strict=True)]


def check_gates(model: PathLike) -> None:
    """Check that a network has gates, before long work.

    Args:
        model: a weights file or the folder of a run.

    Raises:
        DataError: the network has no gate.
    """
    path = find_weights(model).path
    _gates(classifier_of(read_weights(path)[0], path), model)


def _gates(spec: Model, model: PathLike) -> set[str]:
    if not (gates := set(gate_paths(spec, spec.input_shape))):
        raise DataError(
            f"{model}: the network has no gate, so it has no attention maps; expected attention such as se, mafc, "
            "coord or ema; sk, mhsa and agent are not gates, because they mix branches or positions"
        )
    return gates


def _maps_of(network: ReferenceModel, gates: set[str], path: str, image: Array) -> AttentionMaps:
    found: dict[str, Array] = {}

    def observe(layer: str, x: Array, y: Array) -> None:
        if layer in gates and x.ndim == 4:
            found[layer] = share_kept(x[0], y[0])

    network.observer = observe
    network(image[None])
    pixels = image.transpose(1, 2, 0)
    low, high = pixels.min(), pixels.max()
    return AttentionMaps(path, (pixels - low) / max(high - low, _TINY), found)
