"""The fused form of the model, for deployment, held to the unfused one."""

from __future__ import annotations

from collections.abc import Iterator

from maam.fusion import fuse, is_fusible
from maam.parity.bounds import LAYER, LOGITS, Bound, difference
from maam.parity.report import Report, Row, Verdict, row
from maam.parity.subject import Subject
from maam.reference import Referee
from maam.spec import Model

STAGE = "fused form"
REFEREE = Bound(1e-12, 0.0, scaled=True)


def compare_fused(subject: Subject, report: Report) -> Iterator[Row]:
    """The fused form in the referee and in each framework, against the referee of the unfused form."""
    if not is_fusible(subject.spec):
        for runner in subject.runners:
            yield Row(STAGE, runner.name, Verdict.NOT_APPLICABLE, note="nothing to fuse")
        return
    x, _ = subject.batch(0)
    expected = subject.referee()(x)
    spec, arrays = fuse(subject.spec, subject.arrays)
    yield row(STAGE, "referee", difference(Referee(spec, arrays)(x), expected, REFEREE), REFEREE, "the whole")
    bound = LOGITS if isinstance(spec, Model) else LAYER
    for runner in subject.runners:
        actual = runner.sibling(spec, arrays).forward(x)
        same = f"{int((actual.argmax(1) == expected.argmax(1)).sum())} of {len(x)} largest outputs the same"
        note = same if isinstance(spec, Model) else ""
        yield row(STAGE, runner.name, difference(actual, expected, bound), bound, "the whole", note)
