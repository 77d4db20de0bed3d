"""The presets as timm models: for each one a function in timm's registry, under the preset's name.

The functions stand in this module by name, as timm's own do in theirs: `timm.list_models(module="presets")`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    is_model,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from torch import nn

from maam.errors import PresetError, WeightsError
from maam.registration import Registry
from maam.spec import Model, preset
from maam.timm.anatomy import dissect
from maam.timm.configuration import changed_size, default_cfg
from maam.timm.model import PresetModel
from maam.timm.options import split_options, timms_options
from maam.timm.weights import checkpoint_filter

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
