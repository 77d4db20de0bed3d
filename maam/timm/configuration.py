"""timm's data configuration of a preset: what its spec and its default recipe say."""

from __future__ import annotations

from typing import Any

from maam.errors import RecipeError
from maam.spec import Model, head, input_rule, preset
from maam.timm.anatomy import first_convolutions
from maam.training import default_recipe
from maam.training.recipe import Images

INTERPOLATION = "bilinear"
"""How `maam.data` resizes images."""


def default_cfg(name: str, spec: Model) -> dict[str, Any]:
    """The fields of timm's `PretrainedCfg`.

    Mean, deviation and crop are those of the images of the preset's recipe where it reads image files; else pixels in
    [0, 1] are taken as they are, whole.
    """
    channels = spec.input_shape[0]
    images = _images(name)
    mean, std = ((0.0,) * channels, (1.0,) * channels) if images is None else (images.mean, images.std)
    return {
        "url": "",
        "num_classes": spec.num_classes,
        **_size(name, spec),
        "interpolation": INTERPOLATION,
        "mean": mean,
        "std": std,
        "first_conv": _one_or_all(first_convolutions(spec)),
        "classifier": head(spec),
    }


def changed_size(name: str, spec: Model) -> dict[str, Any]:
    """The fields that options of the preset have changed: none where the size of the images is the preset's own.

    The channels stay the preset's: to timm they say what pretrained weights take.
    """
    default = preset(name)
    if spec.input_shape[1:] == default.input_shape[1:]:
        return {}
    return {**_size(name, spec), "input_size": (default.input_shape[0], *spec.input_shape[1:])}


def _size(name: str, spec: Model) -> dict[str, Any]:
    images, size = _images(name), spec.input_shape[1]
    crop = images.framings(size)[1] if images is not None else None
    return {
        "input_size": spec.input_shape,
        "fixed_input_size": input_rule(spec).size is not None,
        "crop_pct": 1.0 if crop is None else crop.size / crop.resize,
    }


def _images(name: str) -> Images | None:
    try:
        recipe = default_recipe(name)
    except RecipeError:  # a preset of the user's own
        return None
    return recipe.images if recipe.data == "imagefolder" else None


def _one_or_all(names: tuple[str, ...]) -> str | tuple[str, ...] | None:
    return names[0] if len(names) == 1 else names or None
