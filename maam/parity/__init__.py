"""Parity checks: compare the frameworks with a float64 reference and name the first layer that differs."""

from maam.backend.registry import make_runners
from maam.parity.check import check
from maam.parity.report import Report, Row, Verdict
from maam.parity.stages import STAGES

__all__ = ["STAGES", "Report", "Row", "Verdict", "check", "make_runners"]
