"""The registry of presets: networks by name, with overrides."""

from __future__ import annotations

import difflib
import fnmatch
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, overload

from maam.errors import PresetError, SpecError
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
    """Register a function of keyword arguments that returns a `Model`, under its own name or `name`.

    As a decorator too: `@register_preset` or `@register_preset(name="mine")`.

    Args:
        factory: the function; each of its arguments has a default.
        name: of the preset; the function's own where None.
        overwrite: a preset of that name is replaced, as running a cell of a notebook again asks for.

    Returns:
        The function.

    Raises:
        PresetError: the name is taken, by a preset or by an alias of one, or is no string; or `factory` is no
            function, or has an argument without a default.
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
            "for a spec that is there already: register_preset(lambda: spec, name)"
        )
    try:
        arguments = inspect.signature(factory).parameters.values()
    except ValueError:
        raise PresetError(f"{factory!r} does not tell its arguments; write a function around it") from None
    for argument in arguments:
        if argument.kind in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD, argument.POSITIONAL_ONLY):
            raise PresetError(f"{argument}: the options of a preset are named arguments; write them out, with defaults")
        if argument.default is argument.empty:
            raise PresetError(f"{argument.name}: an option of a preset has a default; give it one")


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        given = "none, and the function has none of its own" if name is None else repr(name)
        raise PresetError(f"name: expected the name of a preset, a string, got {given}")
    return name


def register_alias(alias: str, name: str) -> None:
    """Make `alias` another name of the preset `name`; `list_presets` does not show it.

    Raises:
        PresetError: the alias is taken, or there is no such preset.
    """
    _find(name)
    _check_is_free(alias)
    _ALIASES[alias] = name


def preset_signature(
    composite: Factory, settings: Mapping[str, Any], left_out: Collection[str], **first: Any
) -> inspect.Signature:
    """The signature of a preset that calls `composite`: the options `first`, then the composite's arguments.

    `settings` are defaults in place of the composite's; the arguments `left_out` are no options of the preset.
    """
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, kind, default=value) for name, value in first.items()]
    kept = [
        argument.replace(kind=kind, default=settings.get(name, argument.default))
        for name, argument in inspect.signature(composite).parameters.items()
        if name not in left_out
    ]
    return inspect.Signature([*added, *kept])


def preset(name: str, /, **overrides: Any) -> Model:
    """The spec of the preset `name`, with `overrides` in place of its defaults.

    Raises:
        PresetError: there is no such preset, it has no such option, or its function returns no `Model`.
        SpecError: an option has an invalid value.
    """
    factory = _find(name)
    accepted = preset_options(name)
    if unknown := sorted(set(overrides) - set(accepted)):
        raise PresetError(f"preset {name!r} has no option {unknown[0]!r}; its options: {', '.join(accepted)}")
    model = factory(**overrides)
    if not isinstance(model, Model):
        raise PresetError(f"preset {name!r}: expected its function to return a Model, got {type(model).__name__}")
    return model


def aliases() -> dict[str, str]:
    """The other names of presets, each with the preset that it stands for."""
    return dict(_ALIASES)


def resolve(spec: Node | str, /, **options: Any) -> Node:
    """`spec` itself, or the preset of that name with `options`.

    Raises:
        PresetError: there is no preset of that name, or it has no such option.
        SpecError: it is neither a spec nor a name, or a spec with options, or an option is invalid.
    """
    if isinstance(spec, str):
        return preset(spec, **options)
    if options:
        raise SpecError(f"{next(iter(options))}: an option of presets; a spec has been composed already")
    if not isinstance(spec, Node):
        raise SpecError(f"expected a spec or the name of a preset, got an object of type {type(spec).__name__}")
    return spec


def preset_options(name: str) -> dict[str, Any]:
    """The options of a preset and their defaults."""
    parameters = inspect.signature(_find(name)).parameters.values()
    return {p.name: p.default for p in parameters}


def list_presets(pattern: str = "*") -> list[str]:
    """The names of all presets that match a shell wildcard, sorted."""
    return sorted(fnmatch.filter(_FACTORIES, pattern))


def _check_is_free(name: str) -> None:
    if name in _FACTORIES:
        raise PresetError(f"there is a preset {name!r} already; choose another name, or overwrite=True")
    if name in _ALIASES:
        raise PresetError(f"{name!r} is another name of the preset {_ALIASES[name]!r}; choose another name")


def _find(name: str) -> Factory:
    if isinstance(name, str):
        name = _ALIASES.get(name, name)
    if not isinstance(name, str) or name not in _FACTORIES:
        close = difflib.get_close_matches(str(name), _FACTORIES, 3)
        hint = f"did you mean {' or '.join(close)}?" if close else "`maam list` shows all of them"
        raise PresetError(f"no preset {str(name)[:60]!r}; {hint}")
    return _FACTORIES[name]
