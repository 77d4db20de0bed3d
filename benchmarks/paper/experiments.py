"""The results that the MAAM paper (arXiv 2504.13574) reports on CIFAR-10, and the preset for each row."""

from __future__ import annotations

from typing import NamedTuple

from maam.training.compare import Difference, differences
from maam.training.recipe import Recipe
from maam.training.recipe_files import list_recipes, read_recipe


class Scores(NamedTuple):
    """Results on the test images, from 0 to 1; precision, recall and F1 are means over the classes."""

    accuracy: float
    f1: float
    precision: float
    recall: float


class Row(NamedTuple):
    """A row of a table.

    Attributes:
        label: the name in the paper.
        preset: our preset.
        paper: the results in the paper; None if the paper has no such row.
    """

    label: str
    preset: str
    paper: Scores | None


class Experiment(NamedTuple):
    """A table or a figure of the paper.

    Attributes:
        title: title of the page.
        rows: the models to compare.
        statement: a summary of the paper's text about a figure, which has no numbers.
    """

    title: str
    rows: tuple[Row, ...]
    statement: str = ""


_MAAM = Row("MAAM", "maam_cifar10_2m3", Scores(0.870, 0.871, 0.871, 0.871))
_BASELINES = (
    Row("CNN", "cnn", Scores(0.583, 0.580, 0.579, 0.584)),
    Row("MLP", "mlp", Scores(0.496, 0.490, 0.596, 0.490)),
    Row("RNN", "rnn", Scores(0.319, 0.308, 0.309, 0.319)),
)

EXPERIMENTS = {
    "table1": Experiment("Table 1: MAAM and plain networks", (_MAAM, *_BASELINES)),
    "table2": Experiment(
        "Table 2: MAAM without its parts",
        (
            _MAAM,
            Row("t/CNN", "t_cnn", Scores(0.314, 0.303, 0.304, 0.313)),
            Row("o/Agent Attention (module removed)", "without_agent_attention", Scores(0.320, 0.316, 0.312, 0.312)),
            Row("o/Agent Attention (plain mean)", "without_fusion", None),
            Row("o/Reduce Layer", "without_reduce", Scores(0.255, 0.252, 0.251, 0.254)),
        ),
    ),
    "figure2": Experiment(
        "Figure 2: training and test loss",
        (_MAAM, *_BASELINES),
        "MAAM's loss is significantly lower than the others' from the early stages on, and continues to decline; RNN's "
        "remains at a relatively high level throughout; CNN's decreases less than MAAM's; MLP's fluctuates greatly.",
    ),
}
"""The paper's MAAM has the map sizes of `maam_cifar10` and the number of parameters of `maam_cifar10_2m3`: see
docs/paper.md. `without_fusion` is a second interpretation of "o/Agent Attention"."""


_FREE_FIELDS = ("model", "seed", "precision")


def recipe_differences(one: Recipe, other: Recipe) -> list[Difference]:
    """Return the differences that are not allowed between runs of one table.

    Model and seed differ by design. The precision is the fastest one on the machine of each run.
    """
    return [difference for difference in differences(one, other) if difference.field not in _FREE_FIELDS]


def name_recipe(recipe: Recipe) -> str:
    """Return the name of the closest recipe of the package and the values of the fields that differ from it.

    The number of epochs is left out: tables have a column for it.
    """
    found = {name: recipe_differences(read_recipe(name), recipe) for name in list_recipes()}
    name = min(found, key=lambda known: len(found[known]))
    return ", ".join((name, *(f"{one.field} {one.other}" for one in found[name] if one.field != "epochs")))
