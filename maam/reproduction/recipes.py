"""What a table calls recipes, and in which fields those of one table may differ."""

from __future__ import annotations

from maam.training.comparison import Difference, differences
from maam.training.library import list_recipes, read_recipe
from maam.training.recipe import Recipe

_OWN = ("model", "seed", "precision")
"""Fields in which the runs of one table may differ; the precision is what trains fastest on a machine."""


def without_own(found: list[Difference]) -> list[Difference]:
    """Without those in which the runs of one table may differ: model, seed, precision."""
    return [difference for difference in found if difference.field not in _OWN]


def name_recipe(recipe: Recipe) -> str:
    """The package's recipe that comes nearest, and what differs from it besides epochs, model, seed and precision."""
    gaps = {name: without_own(differences(read_recipe(name), recipe)) for name in list_recipes()}
    name = min(gaps, key=lambda known: len(gaps[known]))
    return ", ".join((name, *(f"{gap.field} {gap.other}" for gap in gaps[name] if gap.field != "epochs")))
