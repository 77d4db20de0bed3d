"""What the MAAM paper (arXiv 2504.13574) reports on CIFAR-10, and the preset that stands for each row."""

from __future__ import annotations

from typing import NamedTuple

from maam.training.compare import Difference, differences
from maam.training.recipe import Recipe
from maam.training.recipe_files import list_recipes, read_recipe


class Figures(NamedTuple):
    """Shares of the test images, 0 to 1; precision, recall and F1 are means over the classes."""

    accuracy: float
    f1: float
    precision: float
    recall: float


class Row(NamedTuple):
    """A row of a table: the paper's name, our preset, and the paper's figures where it has that row."""

    label: str
    preset: str
    paper: Figures | None


class Experiment(NamedTuple):
    """A table or a figure of the paper, and what the paper says of a figure, which has no numbers."""

    title: str
    rows: tuple[Row, ...]
    said: str = ""


_MAAM = Row("MAAM", "maam_cifar10_2m3", Figures(0.870, 0.871, 0.871, 0.871))
_BASELINES = (
    Row("CNN", "cnn", Figures(0.583, 0.580, 0.579, 0.584)),
    Row("MLP", "mlp", Figures(0.496, 0.490, 0.596, 0.490)),
    Row("RNN", "rnn", Figures(0.319, 0.308, 0.309, 0.319)),
)

EXPERIMENTS = {
    "table1": Experiment("Table 1: MAAM and plain networks", (_MAAM, *_BASELINES)),
    "table2": Experiment(
        "Table 2: MAAM without its parts",
        (
            _MAAM,
            Row("t/CNN", "t_cnn", Figures(0.314, 0.303, 0.304, 0.313)),
            Row("o/Agent Attention (module removed)", "without_agent_attention", Figures(0.320, 0.316, 0.312, 0.312)),
            Row("o/Agent Attention (plain mean)", "without_fusion", None),
            Row("o/Reduce Layer", "without_reduce", Figures(0.255, 0.252, 0.251, 0.254)),
        ),
    ),
    "figure2": Experiment(
        "Figure 2: training and test loss",
        (_MAAM, *_BASELINES),
        "MAAM's loss is significantly lower than the others' from the early stages on, and continues to decline; RNN's "
        "remains at a relatively high level throughout; CNN's decreases less than MAAM's; MLP's fluctuates greatly.",
    ),
}
"""The paper's own MAAM is the larger preset `maam_cifar10` by its map sizes, and `maam_cifar10_2m3` by its parameters;
docs/paper.md weighs both. `without_fusion` is the second reading of "o/Agent Attention"."""


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
