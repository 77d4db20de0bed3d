"""Proof that all frameworks compute the same function, or the name of the first layer where they do not."""

from maam.backend.registry import make_runners
from maam.parity.check import check
from maam.parity.report import Report, Row, Verdict
from maam.parity.stages import STAGES

__all__ = ["STAGES", "Report", "Row", "Verdict", "check", "make_runners"]
