"""The presets as timm models: for each one a function in timm's registry, under the preset's name.

The functions stand in this module by name, as timm's own do in theirs: `timm.list_models(module="presets")`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from torch import Tensor, nn

from maam._registration import Registry, attention_option
from maam.errors import PresetError, RecipeError, SpecError, WeightsError
from maam.spec import BatchNorm2d, Conv2d, Model, Node, head, input_rule, preset, preset_options
from maam.timm.model import PresetModel
from maam.timm.structure import dissect, first_convolutions
from maam.torch.insertion import LAYERS
from maam.training import default_recipe
from maam.training.recipe import Images
from maam.weights.file import read_safetensors
from maam.weights.match import check_same_function, strip_prefixes

_TIMMS = {"in_channels": "in_chans", "image_size": "img_size"}


def timms_options(name: str) -> list[str]:
    """The options of a preset, as timm's users call them."""
    return [_TIMMS.get(option, option) for option in preset_options(name)]


def split_options(name: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that are the preset's, under the spec's names, and the others.

    Raises:
        PresetError: an option has timm's name and is not given under it.
        SpecError: `img_size` is not square, or `attention` is a function.
    """
    own: dict[str, Any] = {}
    rest = dict(options)
    for option in preset_options(name):
        known = _TIMMS.get(option, option)
        if option != known and option in rest:
            raise PresetError(f"{name!r} has no option {option!r} here; timm calls it {known!r}")
        if known in rest:
            own[option] = rest.pop(known)
    if isinstance(size := own.get("image_size"), (tuple, list)):
        own["image_size"] = _side(size)
    if "attention" in own:
        own["attention"] = attention_option(name, own["attention"], LAYERS)
    return own, rest


def _side(size: tuple[Any, ...] | list[Any]) -> Any:
    if len(size) != 2 or size[0] != size[1]:
        raise SpecError(f"img_size: expected one number or two that are equal, got {tuple(size)}")
    return size[0]


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


def checkpoint_filter(
    state_dict: Mapping[str, Tensor], model: PresetModel, *, new_head: bool = True
) -> dict[str, Tensor]:
    """The arrays for `model`, which timm then fits to its classes and channels.

    What timm must know of the source for that, classes and channels, is read off the arrays. A batch norm in front of
    the first convolution gets the mean over the source's channels, where the model has another number of them.

    Raises:
        WeightsError: the arrays come from a weights file of maam whose network computes something else, or there are
            other classes and `new_head` is false.
    """
    arrays = strip_prefixes(state_dict)
    cfg: dict[str, Any] = model.pretrained_cfg  # type: ignore[assignment]
    first, last = first_convolutions(model.whole), model.anatomy.head
    changed: tuple[str, ...] = ()
    if f"{last}.weight" in arrays:
        cfg["num_classes"] = classes = arrays[f"{last}.weight"].shape[0]
        changed += (last,) if classes != model.num_classes else ()
        if changed and not new_head:
            raise WeightsError(
                f"{cfg.get('file', 'weights')}: {classes} classes there, {model.num_classes} in the model; pass "
                f"num_classes={classes} to keep the last layer, or another number for a new one"
            )
    channels = _channels(arrays, model.whole, first)
    if channels not in (None, model.in_chans):
        cfg["input_size"] = (channels, *cfg["input_size"][1:])
        norms = [path for path in model.anatomy.stem if isinstance(model.whole.at(path), BatchNorm2d)]
        arrays = {name: _averaged(name, array, norms, model.in_chans) for name, array in arrays.items()}
        changed += (*first, *norms)
    _check_function(model.whole, cfg.get("file"), changed)
    return arrays


def _channels(arrays: Mapping[str, Tensor], spec: Node, first: tuple[str, ...]) -> int | None:
    """The channels of the source's images; None where no convolution says it."""
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
            check_same_function(own, saved, source=str(path), skip=skip)


__all__ = ["is_preset", "register_presets"]  # timm adds the models' names
default_cfgs: dict[str, Any] = {}
"""What timm notes of each model; it looks for this name."""
REGISTRY = Registry("timm", __name__, is_model, model_entrypoint)
_OPTIONS = ("global_pool", "drop_rate", "seed", "features_only", "device", "dtype")


def register_presets(pattern: str = "*") -> list[str]:
    """Register the presets that match a shell wildcard and are classifiers; returns their names.

    Those that are registered already stay; a preset that was added by `maam.register_preset` since is new.

    Raises:
        PresetError: a model of another origin has a preset's name in timm's registry; nothing is registered then.
    """
    found = REGISTRY.find_classifiers(pattern, dissect)
    for name, spec in found.items():
        if not is_preset(name):
            default_cfgs.update(generate_default_cfgs({name: default_cfg(name, spec)}))
            globals()[name] = register_model(_entrypoint(name))
    return list(found)


def is_preset(name: str) -> bool:
    """Whether timm's model of this name is one of ours."""
    return REGISTRY.is_preset(name)


def _entrypoint(name: str) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **options: Any) -> nn.Module:
        return _create(name, pretrained, **options)

    create.__name__ = create.__qualname__ = name  # by which timm registers it
    create.__doc__ = (
        f"The preset {name!r}; `options` are its own, with timm's names in_chans and img_size, and timm's num_classes, "
        "global_pool, drop_rate, features_only, device and dtype; `seed` draws the weights alike in all frameworks."
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
        del rest["global_pool"]  # below, so that weights reach the head too, should it come back
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
        feature_cfg=_feature_cfg(name, spec) if features_only else None,
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
    """What timm's builder calls, with what it has not used itself; `spec` says the channels and the size."""
    if unknown:
        known = (*timms_options(name), *_OPTIONS)
        raise PresetError(f"{name!r} has no option {min(unknown)!r}; its options: {', '.join(known)}")
    given = {"num_classes": num_classes, "global_pool": global_pool, "drop_rate": drop_rate, "seed": seed}
    return PresetModel(spec, **given, device=device, dtype=dtype)  # type: ignore[arg-type]


def _feature_cfg(name: str, spec: Model) -> dict[str, Any]:
    count = len(dissect(spec).info)
    if not count:
        raise PresetError(f"{name!r} has no feature maps, so it has no features_only")
    return {"out_indices": tuple(range(count)), "feature_cls": "getter"}


def _check_source(name: str, cfg: Any) -> None:
    if not (cfg.has_weights or cfg.state_dict):
        raise WeightsError(
            f"{name}: there are no published weights; leave pretrained out, or name a file of your own: "
            "pretrained_cfg_overlay={'file': PATH}"
        )
