"""The registry of presets: functions that return a `Model`, by name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, overload

from maam._messages import suggestion
from maam.errors import OptionError, PresetError, SpecError
from maam.spec.containers import Model
from maam.spec.node import Node

Factory = Callable[..., Model]
FactoryT = TypeVar("FactoryT", bound=Factory)
_FACTORIES: dict[str, Factory] = {}
_ALIASES: dict[str, str] = {}


@overload
def register_preset(factory: FactoryT, name: str | None = None, *, overwrite: bool = False) -> FactoryT: ...


@overload
def register_preset(
    factory: None = None, name: str | None = None, *, overwrite: bool = False
) -> Callable[[FactoryT], FactoryT]: ...


def register_preset(factory: Factory | None = None, name: str | None = None, *, overwrite: bool = False) -> Any:
    """Register a function as a preset; can be used as a decorator, with or without arguments.

    Args:
        factory: returns a `Model`. All its arguments have defaults; they are the options of the preset.
        name: the name of the preset. Default: the name of the function.
        overwrite: whether to replace a preset with this name, for example when a notebook cell runs again.

    Returns:
        The function.

    Raises:
        PresetError: the name is not a string or is already used; or `factory` is not a function, or has an argument
            without default.

    Example:
        >>> from maam import spec
        >>> @spec.register_preset(name="tiny_mlp", overwrite=True)
        ... def tiny(num_classes: int = 10) -> spec.Model:
        ...     layers = {"flatten": spec.Flatten(), "fc": spec.Linear(in_features=64, out_features=num_classes)}
        ...     return spec.Model(name="tiny_mlp", input_shape=(1, 8, 8), children=layers)
        >>> spec.preset("tiny_mlp", num_classes=2).num_parameters
        130
    """
    if factory is None:
        return lambda found: register_preset(found, name, overwrite=overwrite)
    _check_factory(factory)
    name = _checked_name(getattr(factory, "__name__", None) if name is None else name)
    if not (overwrite and name in _FACTORIES):
        _check_is_free(name)
    _FACTORIES[name] = factory
    return factory


def _check_factory(factory: object) -> None:
    if not callable(factory):
        raise PresetError(
            f"expected a function that returns a Model, got an object of type {type(factory).__name__}; "
            "to register an existing spec use register_preset(lambda: spec, name)"
        )
    try:
        arguments = inspect.signature(factory).parameters.values()
    except ValueError:
        raise PresetError(f"{factory!r}: its signature cannot be inspected; wrap it in a function") from None
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
            raise PresetError(
                f"{argument}: expected only named arguments with defaults, which become the options of the preset"
            )
        if argument.default is argument.empty:
            raise PresetError(f"{argument.name}: expected a default value, because it becomes an option of the preset")


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        given = "None, and the function has no name" if name is None else repr(name)
        raise PresetError(f"name: expected the name of the preset, a string, got {given}")
    return name


def register_alias(alias: str, name: str) -> None:
    """Register another name of a preset; `list_presets` does not include it.

    Raises:
        PresetError: the alias is already used, or there is no preset `name`.
    """
    _find(name)
    _check_is_free(alias)
    _ALIASES[alias] = name


def preset_signature(
    composite: Factory, settings: Mapping[str, Any], left_out: Collection[str], **first: Any
) -> inspect.Signature:
    """Return the signature of a preset that calls a composite with other defaults.

    Args:
        composite: the composite.
        settings: defaults that replace those of the composite.
        left_out: arguments of the composite that are not options of the preset.
        **first: further options with their defaults, in front of the composite's.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, kind, default=value) for name, value in first.items()]
    kept = [
        argument.replace(kind=kind, default=settings.get(name, argument.default))
        for name, argument in inspect.signature(composite).parameters.items()
        if name not in left_out
    ]
    return inspect.Signature([*added, *kept])


def register_variant(composite: Factory, name: str, settings: Mapping[str, Any], **fixed: Any) -> None:
    """Register a preset that calls a composite with other defaults.

    Args:
        composite: the composite, which has an argument `name`; it gets the name of the preset.
        name: the name of the preset.
        settings: defaults that replace those of the composite.
        **fixed: further arguments of the composite that are not options of the preset.
    """
    constant = {**fixed, "name": name}

    def build(**overrides: Any) -> Model:
        return composite(**{**constant, **settings, **overrides})

    build.__signature__ = preset_signature(composite, settings, constant)  # type: ignore[attr-defined]
    register_preset(build, name)


def preset(name: str, /, **overrides: Any) -> Model:
    """Return the spec of a preset.

    Args:
        name: the name of the preset; `list_presets` returns all names.
        **overrides: options that replace the defaults; `preset_options` returns them.

    Raises:
        PresetError: there is no such preset or option, or the function of the preset does not return a `Model`.
        SpecError: an option has an invalid value.

    Example:
        >>> from maam import spec
        >>> model = spec.preset("maam_cifar10", num_classes=100)
        >>> model.input_shape, model.num_classes
        ((3, 32, 32), 100)
    """
    factory = _find(name)
    accepted = preset_options(name)
    if unknown := sorted(set(overrides) - set(accepted)):
        hint = suggestion(unknown[0], accepted, f"its options: {', '.join(accepted)}", cutoff=0.9)
        raise OptionError(f"preset {name!r} has no option {unknown[0]!r}; {hint}")
    model = factory(**overrides)
    if not isinstance(model, Model):
        raise PresetError(f"preset {name!r}: expected its function to return a Model, got {type(model).__name__}")
    return model


def aliases() -> dict[str, str]:
    """Return the aliases of presets, with the names of their presets."""
    return dict(_ALIASES)


def resolve(spec: Node | str, /, **options: Any) -> Node:
    """Return a spec: `spec` itself, or the preset of that name with `options`.

    Raises:
        PresetError: there is no such preset or option.
        SpecError: `spec` is neither a spec nor a name, options are given with a spec, or an option is invalid.
    """
    if isinstance(spec, str):
        return preset(spec, **options)
    if options:
        raise SpecError(f"{next(iter(options))}: options are only allowed with the name of a preset, not with a spec")
    if not isinstance(spec, Node):
        raise SpecError(f"expected a spec or the name of a preset, got an object of type {type(spec).__name__}")
    return spec


def preset_options(name: str) -> dict[str, Any]:
    """Return the options of a preset and their defaults.

    Raises:
        PresetError: there is no such preset.

    Example:
        >>> from maam import spec
        >>> spec.preset_options("cnn")
        {'num_classes': 10, 'in_channels': 3, 'image_size': 32}
    """
    parameters = inspect.signature(_find(name)).parameters.values()
    return {p.name: p.default for p in parameters}


def list_presets(pattern: str = "*") -> list[str]:
    """Return the sorted names of all presets that match a shell wildcard.

    Example:
        >>> from maam import spec
        >>> spec.list_presets("maam_[cd]*")
        ['maam_cifar10', 'maam_cifar10_2m3', 'maam_digits']
    """
    return sorted(fnmatch.filter(_FACTORIES, pattern))


def _check_is_free(name: str) -> None:
    if name in _FACTORIES:
        raise PresetError(f"the preset {name!r} already exists; use another name or overwrite=True")
    if name in _ALIASES:
        raise PresetError(f"{name!r} is an alias of the preset {_ALIASES[name]!r}; use another name")


def _find(name: str) -> Factory:
    if isinstance(name, str):
        name = _ALIASES.get(name, name)
    if not isinstance(name, str) or name not in _FACTORIES:
        hint = suggestion(name, _FACTORIES, "`maam list` shows all presets", count=3)
        raise PresetError(f"no preset {str(name)[:60]!r}; {hint}")
    return _FACTORIES[name]
