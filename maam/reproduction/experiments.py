"""What the MAAM paper (arXiv 2504.13574) reports on CIFAR-10, and the preset that stands for each row."""

from __future__ import annotations

from typing import NamedTuple


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
