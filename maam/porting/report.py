"""The report of a port: rows as in a parity report, pairs of layers, causes, and both models side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from maam.parity.report import Depth, Report
from maam.porting.causes import Cause
from maam.porting.layers import Judgement
from maam.porting.matching import MergedLayer, Pair
from maam.porting.subject import RUNNER, Subject

EQUAL, DIFFERS, TOGETHER, UNPAIRED = "equal", "differs", "equal as a group", "no counterpart"


class Line(NamedTuple):
    """A row of the two models side by side: a layer of each.

    Attributes:
        torch: PyTorch's path; empty if only MindSpore runs the layer.
        torch_layer: the expression that builds PyTorch's layer, or its kind.
        mindspore: MindSpore's path.
        mindspore_layer: the expression that builds MindSpore's layer, or its kind.
        verdict: `EQUAL`, `DIFFERS`, `TOGETHER` or `UNPAIRED`.
        absolute: the largest difference of the layer alone; NaN if it was not compared.
    """

    torch: str
    torch_layer: str
    mindspore: str
    mindspore_layer: str
    verdict: str
    absolute: float = math.nan


@dataclass
class PortReport(Report):
    """The report of a port.

    Attributes:
        pairs: the layers with weights, in PyTorch's order.
        how: how they were paired, such as "by name".
        causes: the causes of all differences, those that change results first.
        remarks: further facts about the models, such as constant tables that only one of them stores.
        layout: all layers of both models, in the order in which PyTorch runs them.
        refusal: the error message of a MindSpore model that cannot run; empty if it can.

    Example:
        >>> from maam.porting import PortReport
        >>> report = PortReport("net", how="by name")
        >>> len(report.pairs), report.passed
        (0, False)
    """

    pairs: Sequence[Pair] = field(default_factory=tuple)
    how: str = ""
    causes: list[Cause] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    layout: list[Line] = field(default_factory=list)
    refusal: str = ""

    @property
    def names(self) -> dict[str, str]:
        """MindSpore's path for each path in PyTorch, as `names` of `maam.port` takes them."""
        pairs = [pair for pair in self.pairs if not any(isinstance(layer, MergedLayer) for layer in pair)]
        return {pair.torch.name: pair.mindspore.name for pair in pairs}

    @property
    def differing_layers(self) -> list[str]:
        """The names of all layers that differ, each once."""
        return list(dict.fromkeys(name for cause in self.causes if cause.seen for name in cause.layers))

    def document(self) -> dict[str, Any]:
        """Return the report as a document for JSON."""
        causes = [{**asdict(cause), "text": cause.text, "title": cause.title} for cause in self.causes]
        return {
            **super().document(),
            "how": self.how,
            "names": self.names,
            "causes": causes,
            "remarks": self.remarks,
            "refusal": self.refusal,
            "differing_layers": self.differing_layers,
        }


def depth_of(judged: Sequence[Judgement], subject: Subject) -> list[Depth]:
    """Return the difference of each layer alone, for the plot over the depth of the network."""
    found = []
    for judgement in judged:
        for mode, gap in judgement.found.items():
            output = subject.recording("torch", mode == "train").calls[judgement.run.torch].output
            largest = 0.0 if output is None else float(abs(output).max(initial=0))
            if not judgement.group:
                found.append(Depth(RUNNER, mode, judgement.run.pair.name, gap.absolute, largest))
    return found


def lay_out(subject: Subject, judged: Sequence[Judgement]) -> list[Line]:
    """Return both models side by side: PyTorch's calls in order, MindSpore's unpaired ones in between."""
    own = subject.recording("torch").calls
    other = [] if subject.refusal else subject.recording("mindspore").calls
    by_call = {judgement.run.torch: judgement for judgement in judged}
    taken = {judgement.run.mindspore for judgement in judged}
    lines: list[Line] = []
    position = 0
    for index, call in enumerate(own):
        judgement = by_call.get(index)
        if judgement is None:
            lines.append(Line(call.name, _expression(subject, "torch", call.name), "", "", UNPAIRED))
            continue
        reached = judgement.run.mindspore
        if reached is not None:
            lines += _unpaired(subject, other, range(position, reached), taken)
            position = max(position, reached + 1)
        lines.append(_paired(subject, judgement))
    return [*lines, *_unpaired(subject, other, range(position, len(other)), taken)]


def _paired(subject: Subject, judgement: Judgement) -> Line:
    pair = judgement.run.pair
    verdict = DIFFERS if judgement.differs or judgement.before else TOGETHER if judgement.group else EQUAL
    worst = max((gap.absolute for gap in judgement.found.values()), default=math.nan)
    left, right = (
        _expression(subject, side, layer.name) for side, layer in (("torch", pair.torch), ("mindspore", pair.mindspore))
    )
    return Line(pair.torch.name, left, pair.mindspore.name, right, verdict, math.nan if judgement.group else worst)


def _unpaired(subject: Subject, calls: Sequence[Any], indices: range, taken: set[int | None]) -> list[Line]:
    names = [calls[i].name for i in indices if i not in taken]
    return [Line("", "", name, _expression(subject, "mindspore", name), UNPAIRED) for name in names]


def _expression(subject: Subject, side: str, name: str) -> str:
    kind = next((layer.kind for layer in subject.layers_of(side) if layer.name == name), "")
    return subject.adapters[side].write_layer(name, {}) or kind
