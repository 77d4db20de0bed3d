"""How recipes differ, and what a table calls them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from maam.training.library import list_recipes, read_recipe
from maam.training.recipe import Recipe

AUTO = "auto"
_OWN = ("model", "seed", "precision")
"""Fields in which the runs of one table may differ; the precision is what trains fastest on a machine."""


class Difference(NamedTuple):
    """A field by its path, such as "optimizer.lr", and its two values."""

    field: str
    one: Any
    other: Any


def differences(one: Recipe, other: Recipe) -> list[Difference]:
    """The fields in which two recipes differ, in the order of `Recipe`; `presets` decides nothing and is left out.

    Precision "auto" is whatever a machine found fastest, so it differs from no other.
    """
    values, others = dict(_flat(one.model_dump())), dict(_flat(other.model_dump()))
    paths = [path for path in dict.fromkeys((*values, *others)) if path != "presets"]
    found = [Difference(path, values.get(path), others.get(path)) for path in paths]
    return [d for d in found if d.one != d.other and not (d.field == "precision" and AUTO in (d.one, d.other))]


def without_own(found: list[Difference]) -> list[Difference]:
    """Without those in which the runs of one table may differ: model, seed, precision."""
    return [difference for difference in found if difference.field not in _OWN]


def name_recipe(recipe: Recipe) -> str:
    """The package's recipe that comes nearest, and what differs from it besides epochs, model, seed and precision."""
    gaps = {name: without_own(differences(read_recipe(name), recipe)) for name in list_recipes()}
    name = min(gaps, key=lambda known: len(gaps[known]))
    return ", ".join((name, *(f"{gap.field} {gap.other}" for gap in gaps[name] if gap.field != "epochs")))


def _flat(table: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value
