"""Registration of the presets as models of timm.

timm identifies a model by a function and its module: `timm.list_models(module="presets")` lists those of this module.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from torch import Tensor, nn

from maam._messages import suggestion
from maam._registration import Registry, attention_option, without_zero_rates
from maam.errors import OptionError, RecipeError, SpecError, WeightsError
from maam.spec import BatchNorm2d, Conv2d, Model, Node, head, input_rule, preset, preset_options
from maam.timm.model import PresetModel
from maam.timm.structure import analyze, first_convolutions
from maam.torch.insertion import LAYERS
from maam.training import default_recipe
from maam.training.recipe import Images
from maam.weights.file import read_safetensors
from maam.weights.match import check_same_function, names_of, strip_prefixes
from maam.weights.pretrained import find_pretrained, has_pretrained
from maam.weights.sets import strip_common

__all__ = ["is_preset", "register_presets"]  # timm appends the names of the models
REGISTRY = Registry("timm", __name__, is_model, model_entrypoint, register_model)
default_cfgs: dict[str, Any] = {}
"""timm's configuration of each model; timm requires this name."""
_TIMM_NAMES = {"in_channels": "in_chans", "image_size": "img_size"}
_OPTIONS = ("global_pool", "drop_rate", "seed", "features_only", "device", "dtype")


def register_presets(pattern: str = "*") -> list[str]:
    """Register the presets that match a shell wildcard in timm's registry, if timm can use them.

    These are the classifiers with at least three feature maps, the number that timm's own tests require.
    Importing `maam.timm` calls this function for all presets. Call it again after `maam.register_preset`.

    Args:
        pattern: a shell wildcard for names of presets.

    Returns:
        The names of the matching presets, including those that were registered before.

    Raises:
        PresetError: timm has another model with the name of a preset. Nothing is registered then.

    Example:
        >>> import timm
        >>> from maam.timm import register_presets
        >>> register_presets("maam_d*")
        ['maam_digits']
        >>> timm.create_model("maam_digits", num_classes=4).num_classes
        4
    """
    found = REGISTRY.find_classifiers(pattern, analyze)
    for name, spec in found.items():
        if not is_preset(name):
            default_cfgs.update(generate_default_cfgs({name: default_cfg(name, spec)}))
            REGISTRY.register(_entrypoint(name), name, __name__)
    return list(found)


def is_preset(name: str) -> bool:
    """Return whether timm's model `name` is one of our presets."""
    return REGISTRY.is_preset(name)


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        return _create(name, pretrained, **options)

    create.__doc__ = (
        f"Build the preset {name!r}. `options` are the options of the preset, with timm's names in_chans and img_size, "
        "and timm's num_classes, global_pool, drop_rate, features_only, device and dtype. With `seed` all frameworks "
        "draw the same weights."
    )
    return create


def _create(
    name: str,
    pretrained: bool,
    *,
    pretrained_cfg: Any = None,
    pretrained_cfg_overlay: dict[str, Any] | None = None,
    features_only: bool = False,
    num_classes: int | None = None,
    **options: Any,
) -> nn.Module:
    own, rest = split_options(name, options)
    no_head = not features_only and rest.get("global_pool") == ""
    if no_head:
        del rest["global_pool"]  # set below, so that weights are loaded into the head too
    spec = preset(name, **own) if num_classes in (None, 0) else preset(name, num_classes=num_classes, **own)
    overlay = {**changed_size(name, spec), **(pretrained_cfg_overlay or {})}
    if pretrained:
        _check_source(name, resolve_pretrained_cfg(name, pretrained_cfg, overlay))
    model: nn.Module = build_model_with_cfg(
        functools.partial(_model, name, spec),
        name,
        pretrained,
        pretrained_cfg=pretrained_cfg,
        pretrained_cfg_overlay=overlay,
        pretrained_filter_fn=functools.partial(checkpoint_filter, new_head=features_only or num_classes is not None),
        feature_cfg={"out_indices": tuple(range(len(analyze(spec).info))), "feature_cls": "getter"},
        features_only=features_only,
        num_classes=spec.num_classes if num_classes is None else num_classes,
        in_chans=spec.input_shape[0],
        **rest,
    )
    if no_head:
        cast(PresetModel, model).reset_classifier(cast(PresetModel, model).num_classes, "")
    return model


def _model(
    name: str,
    spec: Model,
    *,
    num_classes: int,
    in_chans: int,
    img_size: Any = None,
    global_pool: str | None = None,
    drop_rate: float = 0.0,
    seed: int | None = None,
    device: Any = None,
    dtype: Any = None,
    **unknown: Any,
) -> PresetModel:
    """Build the model; timm calls this with the options it has not used. `spec` determines channels and size."""
    if unknown := without_zero_rates(unknown):
        known = (*(_TIMM_NAMES.get(option, option) for option in preset_options(name)), *_OPTIONS)
        hint = suggestion(min(unknown), known, f"its options: {', '.join(known)}", cutoff=0.9)
        raise OptionError(f"{name!r} has no option {min(unknown)!r}; {hint}")
    given = {"num_classes": num_classes, "global_pool": global_pool, "drop_rate": drop_rate, "seed": seed}
    return PresetModel(spec, **given, device=device, dtype=dtype)  # type: ignore[arg-type]


def _check_source(name: str, cfg: Any) -> None:
    if not (cfg.has_weights or cfg.state_dict):
        raise WeightsError(
            f"{name}: there are no pretrained weights for this preset; omit pretrained, or add the path of a file: "
            "pretrained_cfg_overlay={'file': PATH}"
        )


def split_options(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options of the preset under the names of the spec, and the other options.

    Raises:
        OptionError: an option has another name in timm.
        SpecError: `img_size` is not square, or `attention` is a function.
    """
    own: dict[str, Any] = {}
    rest = dict(options)
    for option in preset_options(name):
        known = _TIMM_NAMES.get(option, option)
        if option != known and option in rest:
            raise OptionError(f"{option}: {name!r} has no such option in timm; use {known!r}")
        if known in rest:
            own[option] = rest.pop(known)
    if isinstance(size := own.get("image_size"), (tuple, list)):
        if len(size) != 2 or size[0] != size[1]:
            raise SpecError(f"img_size: expected one number or two equal numbers, got {tuple(size)}")
        own["image_size"] = size[0]
    if "attention" in own:
        own["attention"] = attention_option(name, own["attention"], LAYERS)
    return own, rest


def default_cfg(name: str, spec: Model) -> dict[str, Any]:
    """Return the fields of timm's `PretrainedCfg`.

    Mean, standard deviation and crop are those of the recipe of the preset, if the recipe reads image files. If not,
    the whole image is used, with pixels in [0, 1].
    """
    channels = spec.input_shape[0]
    images, first = _images(name), first_convolutions(spec)
    mean, std = ((0.0,) * channels, (1.0,) * channels) if images is None else (images.mean, images.std)
    return {
        "url": "",
        "file": str(find_pretrained(name)) if has_pretrained(name) else None,
        "num_classes": spec.num_classes,
        **_size(name, spec),
        "interpolation": "bilinear",  # as in maam.data
        "mean": mean,
        "std": std,
        "first_conv": first[0] if len(first) == 1 else first or None,
        "classifier": head(spec),
    }


def changed_size(name: str, spec: Model) -> dict[str, Any]:
    """Return the fields that depend on the size of the images, or no fields for the default size of the preset.

    The number of channels is always that of the preset, because timm expects pretrained weights with that number.
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
        "pool_size": analyze(spec).pool_size,
        "crop_pct": 1.0 if crop is None else crop.size / crop.resize,
    }


def _images(name: str) -> Images | None:
    try:
        recipe = default_recipe(name)
    except RecipeError:  # a preset that the user has registered
        return None
    return recipe.images if recipe.data == "imagefolder" else None


_HALF = (torch.float16, torch.bfloat16)
_ADVICE = "build the model with the options of the file, or without pretrained"


def checkpoint_filter(
    state_dict: Mapping[str, Tensor], model: PresetModel, *, new_head: bool = True
) -> dict[str, Tensor]:
    """Return the arrays for `model`, before timm adapts them to its classes and channels.

    timm needs the classes and channels of the source for that; they are read from the shapes of the arrays. If the
    number of channels differs, a batch norm before the first convolution gets the mean over the channels.

    Args:
        state_dict: the arrays of the source by name.
        model: the model to fill.
        new_head: whether the model keeps its new last layer if the number of classes differs.

    Raises:
        WeightsError: a weights file of maam belongs to a network that computes something else, or the number of
            classes differs and `new_head` is false.
    """
    arrays = strip_prefixes(strip_common(state_dict, names_of(model.whole)))
    # timm sums the channels of the first convolution in the dtype of the file
    arrays = {name: array.float() if array.dtype in _HALF else array for name, array in arrays.items()}
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    first, last = first_convolutions(model.whole), model.structure.head
    changed: tuple[str, ...] = ()
    if f"{last}.weight" in arrays:
        cfg["num_classes"] = classes = arrays[f"{last}.weight"].shape[0]
        changed += (last,) if classes != model.num_classes else ()
        if changed and not new_head:
            raise WeightsError(
                f"{cfg.get('file', 'weights')}: the file has {classes} classes and the model {model.num_classes}; pass "
                f"num_classes={classes} to load the last layer, or num_classes={model.num_classes} for a new one"
            )
    channels = _channels(arrays, model.whole, first)
    if channels not in (None, model.in_chans):
        cfg["input_size"] = (channels, *cfg["input_size"][1:])
        norms = [path for path in model.structure.stem if isinstance(model.whole.at(path), BatchNorm2d)]
        arrays = {name: _averaged(name, array, norms, model.in_chans) for name, array in arrays.items()}
        changed += (*first, *norms)
    _check_function(model.whole, cfg.get("file"), changed)
    return arrays


def _channels(arrays: Mapping[str, Tensor], spec: Node, first: tuple[str, ...]) -> int | None:
    """Return the number of channels of the source's images, or None if no convolution shows it."""
    for path in first:
        layer = spec.at(path)
        if isinstance(layer, Conv2d) and layer.groups == 1 and f"{path}.weight" in arrays:
            return arrays[f"{path}.weight"].shape[1]
    return None


def _averaged(name: str, array: Tensor, norms: list[str], channels: int) -> Tensor:
    if name.rpartition(".")[0] in norms and array.dim() == 1:
        return array.mean().expand(channels).clone()
    return array


def _check_function(own: Node, path: Any, skip: tuple[str, ...]) -> None:
    if path and str(path).endswith(".safetensors"):
        saved, _ = read_safetensors(path)
        if saved is not None:
            check_same_function(own, saved, source=str(path), skip=skip, advice=_ADVICE)
