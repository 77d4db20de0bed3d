"""Networks of timm with pretrained weights, of the plain network or of the network with attention layers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import load_pretrained
from torch import nn

from maam._insertion import Insertion, matching
from maam._messages import listed
from maam._options import SAVED_WITH_ATTENTION, refused_options, shortened_reason
from maam._registration import unknown_model
from maam.errors import MaamError, OptionError, PresetError, WeightsError
from maam.timm.insert import insert_attention

Shapes = dict[str, tuple[int, ...]]

_ATTENTION = re.compile(r"(^|\.)(se|attention)\.")
"""The names of arrays of attention layers, those of timm and those that `insert_attention` inserts."""
_OF_FEATURES = ("features_only", "out_indices", "feature_cls")
_SOURCES = ("file", "url", "hf_hub_id", "state_dict")
_KNOWN = ("num_classes", "in_chans", "img_size", "drop_rate", "drop_path_rate", "global_pool", *_OF_FEATURES)


class _Recorded(Exception):  # noqa: N818 (not an error)
    """Raised to stop timm between reading weights and loading them."""


def build_network(name: str, pretrained: bool, insertion: Insertion | None, options: dict[str, Any]) -> nn.Module:
    """Build a network with its pretrained weights, and insert attention.

    Weights that timm publishes are those of the plain network. Other weights, of a folder, a repository or a file,
    can contain the attention layers. They are loaded into the network with attention if names and shapes are equal, and
    otherwise into the plain network.

    Args:
        name: see `maam.timm.create_model`.
        pretrained: see `maam.timm.create_model`.
        insertion: the attention to insert; None for none.
        options: the options of timm.

    Raises:
        PresetError: timm has no model of that name, or refuses an option.
        SpecError: see `insert_attention`.
        WeightsError: the weights are missing or broken, or belong to a network with other attention layers.
    """
    if not (pretrained and _has_own_source(name, options)):
        model = _create(name, pretrained, options)
        return model if insertion is None else _insert(model, insertion)
    whole = _create(name, False, {option: value for option, value in options.items() if option not in _OF_FEATURES})
    plain, cache = _shapes(whole), {key: options[key] for key in options.keys() & {"cache_dir"}}
    features = bool(options.get("features_only"))
    if insertion is not None:
        _insert(whole, _for_whole(whole, insertion) if features else insertion)
    found = _read(whole, name, cache)
    if insertion is not None and not _differences(whole, _shapes(whole), found):
        _load(whole, name, options.get("in_chans"), cache)
        return _features(whole, _insert(_create(name, False, options), insertion)) if features else whole
    if wrong := _other_attention(whole, plain, found):
        if insertion is None:
            network, advice = "the network without attention", SAVED_WITH_ATTENTION
        else:
            network, advice = "the network with these attention layers", "choose the attention of the saved network"
            wrong = _differences(whole, _shapes(whole), found)
        raise WeightsError(f"{name}: the pretrained weights do not fit {network}: {listed(wrong, 3)}; {advice}")
    model = _create(name, True, options)
    return model if insertion is None else _insert(model, insertion)


def heads(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the last layers; networks with distillation have two."""
    return _names(getattr(model, "pretrained_cfg", {}), "classifier")


def _names(config: Any, field: str) -> tuple[str, ...]:
    value = config.get(field) or ()
    return (value,) if isinstance(value, str) else tuple(value)


def _has_own_source(name: str, options: Mapping[str, Any]) -> bool:
    """Return whether the weights are not those that timm publishes for the model."""
    overlay, config = options.get("pretrained_cfg_overlay"), options.get("pretrained_cfg")
    replaced = isinstance(overlay, Mapping) and any(overlay.get(source) for source in _SOURCES)
    return ":" in name or replaced or not isinstance(config, (str, type(None)))


def _insert(model: nn.Module, insertion: Insertion) -> nn.Module:
    return insert_attention(model, **insertion._asdict())


def _create(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """Build a model with timm; its errors become errors of maam."""
    _check_source(name)
    try:
        with refused_options("timm", name, options, _KNOWN):
            return timm.create_model(name, pretrained, **options)
    except RuntimeError as error:
        reason = shortened_reason(error)
        if found := re.match(r"Unknown model \((.*)\)", str(error)):
            raise unknown_model(found[1], timm.list_models(), "timm.list_models()") from None
        if reason.startswith("Invalid pretrained tag"):
            raise PresetError(f"{name!r}: {reason}; timm.list_pretrained() lists all models with their tags") from None
        if "features_only" in reason:
            raise OptionError(f"{name!r}: {reason}; omit features_only") from error
        if "loading state_dict" in reason:
            message = f"{name}: the pretrained weights do not fit the model: {reason}; {SAVED_WITH_ATTENTION}"
            raise WeightsError(message) from None
        if "pretrained" in reason:
            raise WeightsError(f"{name}: {reason}") from None
        raise
    except OSError as error:
        if not pretrained and ":" not in name:
            raise
        raise WeightsError(f"{name}: cannot be read: {type(error).__name__}: {shortened_reason(error)}") from error


def _check_source(name: str) -> None:
    """Raise an error if the name has an unknown form, or is a folder that timm cannot read."""
    try:
        source, path = timm.models.parse_model_name(name)
    except (ValueError, AssertionError) as error:
        reason = shortened_reason(error) or "the form of the name is unknown"
        raise PresetError(f"no model {name[:60]!r}: {reason}; timm.list_models() lists all models") from None
    if source != "local-dir":
        return
    expected = "expected a folder that timm.models.save_for_hf has written"
    try:
        config = json.loads(Path(path, "config.json").read_bytes())
    except OSError:
        raise WeightsError(f"{name}: there is no file {Path(path, 'config.json')}; {expected}") from None
    except ValueError as error:
        reason = shortened_reason(error)
        raise WeightsError(f"{name}: {Path(path, 'config.json')} is not JSON: {reason}; {expected}") from None
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        raise WeightsError(f"{name}: {Path(path, 'config.json')} has no field 'architecture'; {expected}")


def _shapes(model: nn.Module) -> Shapes:
    return {name: tuple(array.shape) for name, array in model.state_dict().items()}


def _read(model: nn.Module, name: str, cache: dict[str, Any]) -> Shapes:
    """Return the shapes of the pretrained arrays; empty if timm reads them by a function of the model."""
    found: Shapes = {}

    def record(arrays: dict[str, Any], _: nn.Module) -> dict[str, Any]:
        found.update({key: tuple(getattr(array, "shape", ())) for key, array in arrays.items()})
        raise _Recorded

    try:
        load_pretrained(model, filter_fn=record, **cache)
    except _Recorded:
        pass
    except MaamError:
        raise
    except Exception as error:  # each format has its own errors
        reason = f"{type(error).__name__}: {shortened_reason(error)}"
        raise WeightsError(f"{name}: the pretrained weights cannot be read: {reason}") from error
    return found


def _load(model: nn.Module, name: str, in_chans: int | None, cache: dict[str, Any]) -> None:
    config: Any = model.pretrained_cfg
    saved = getattr(model, "_model_args", {}).get("in_chans")
    channels = in_chans or saved or (config.get("input_size") or (3,))[0]
    classes: Any = model.num_classes
    try:
        load_pretrained(model, num_classes=classes, in_chans=channels, **cache)
    except RuntimeError as error:
        reason = shortened_reason(error)
        raise WeightsError(f"{name}: the pretrained weights do not fit the model: {reason}") from None


def _differences(model: nn.Module, own: Shapes, found: Shapes) -> list[str]:
    """Return the names of the arrays that differ, except those that timm adapts to other classes or channels."""
    skipped = tuple(f"{layer}." for layer in heads(model))
    adapted = {f"{layer}.weight" for layer in _names(model.pretrained_cfg, "first_conv")}
    names = {name for name in own.keys() ^ found.keys() if not name.startswith(skipped)}
    shapes = {name for name in own.keys() & found.keys() - adapted if own[name] != found[name]}
    return sorted(names | {name for name in shapes if not name.startswith(skipped)})


def _other_attention(model: nn.Module, plain: Shapes, found: Shapes) -> list[str]:
    """Return the arrays of attention in which weights differ from the plain network.

    The list is empty if the weights lack other arrays of the network: they have names that timm converts.
    """
    skipped = tuple(f"{layer}." for layer in heads(model))
    others = {name for name in plain if not _ATTENTION.search(name) and not name.startswith(skipped)}
    if not others <= found.keys():
        return []
    names = (name for name in plain.keys() | found.keys() if _ATTENTION.search(name))
    return sorted(name for name in names if plain.get(name) != found.get(name))


def _aliases(name: str) -> Iterator[str]:
    """Yield the names that an array or a module of a network can have with `features_only`."""
    yield from (name, name.replace(".", "_", 1), f"model.{name}", f"body.{name}")


def _for_whole(whole: nn.Module, insertion: Insertion) -> Insertion:
    """Return the insertion for the whole network; `where` has names of the one with `features_only`."""
    if insertion.where is None:
        return insertion
    names = {alias: name for name, _ in whole.named_modules() if name for alias in _aliases(name)}
    found = matching(names, insertion.where, whole)
    return insertion._replace(where=list(dict.fromkeys(names[alias] for alias in found)))


def _features(whole: nn.Module, features: nn.Module) -> nn.Module:
    """Fill a network with `features_only` with the arrays of the whole network."""
    arrays = {alias: array for name, array in whole.state_dict().items() for alias in _aliases(name)}
    own = features.state_dict()
    if missing := [name for name in own if name not in arrays]:
        raise WeightsError(
            f"features_only: the names of {type(features).__name__} differ from those of the whole network: "
            f"{listed(missing, 3)}; build the network without features_only and use forward_intermediates"
        )
    features.load_state_dict({name: arrays[name] for name in own})
    return features
