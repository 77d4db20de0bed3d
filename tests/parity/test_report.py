"""Comparison of arrays, rows, verdicts, and the report as text and JSON."""

import json

import numpy as np
import pytest

from maam.parity.report import Report, Row, Verdict, row, skip
from maam.tolerance import GRADIENT, LAYER, NONE, Bound, Difference, difference, signal_to_noise, worse

EXACT = Bound(0.0, 0.0)
VALUES = np.array([1.0, 2.0, -4.0])


def test_difference():
    found = difference(VALUES + np.array([0, 0, 1e-3]), VALUES, LAYER)
    assert found.used > 1
    assert (found.absolute, found.relative) == pytest.approx((1e-3, 1e-3 / 4))
    assert 0 < difference(VALUES + 1e-6, VALUES, LAYER).used < 1
    assert difference(VALUES, VALUES, EXACT).used == 0


def test_the_absolute_part_grows_with_large_values_only():
    for large, error in (np.array([1e3, 0.0]), 5e-3), (np.array([1e-3]), 5e-6):
        assert difference(large + error, large, Bound(1e-5, 0.0)).used == pytest.approx(0.5)


def test_a_scaled_bound_is_a_share_of_the_largest_value():
    expected = np.array([1e-6, 0.0])
    assert difference(expected + np.array([0, 2e-9]), expected, GRADIENT).used > 1
    assert difference(expected + np.array([0, 2e-9]), expected, GRADIENT, floor=1e-3).used < 1


def test_what_no_bound_allows():
    not_finite, other_shape = (VALUES * [1, 1, np.nan], VALUES * [1, 1, np.inf]), VALUES[None]
    for actual, bound in [*((one, LAYER) for one in (*not_finite, other_shape)), (VALUES + 1e-7, EXACT)]:
        found = difference(actual, VALUES, bound)
        assert found.used == np.inf
        assert row("stage", "torch", found, bound).verdict is Verdict.FAIL


def test_worse_takes_the_larger_value_of_each_field():
    assert worse(Difference(1, 5, 0.1), Difference(2, 3, 0.05)) == Difference(2, 5, 0.1)
    nan = Difference(float("nan"), float("nan"), float("nan"))
    assert worse(NONE, nan).used == worse(nan, NONE).used == float("inf")


def test_signal_to_noise():
    signal = np.ones(100)
    assert signal_to_noise(signal * 1.01, signal) == pytest.approx(40)
    assert signal_to_noise(signal, signal) == np.inf
    assert signal_to_noise(signal * np.nan, signal) == -np.inf


PASSING = Row("layers, eval", "torch", Verdict.PASS, "1e-5", 1e-7, 1e-8)


def test_verdict_of_a_report():
    """A report without a comparison does not pass; one with a stage that did not run is not complete."""
    assert not Report("x").passed
    assert not Report("x", skip(["a"], ["torch"], "why")).passed
    report = Report("x", [PASSING, *skip(["free run"], ["mindspore graph"], "not installed")])
    assert (report.passed, report.complete) == (True, False)
    applicable = Report("x", [PASSING, Row("lattice", "torch", Verdict.NOT_APPLICABLE)])
    assert (applicable.passed, applicable.complete) == (True, True)


def test_a_failure_names_the_first_layer():
    report = Report("x", [PASSING, row("logits", "torch", Difference(1, 1, 9), LAYER, "agents.1"), PASSING])
    assert (report.passed, report.first_difference) == (False, "agents.1")
    assert "FAIL" in report.to_markdown()
    assert "first at agents.1" in report.to_markdown()
    assert row("logits", "torch", Difference(0, 0, 0.5), LAYER, "agents.1").layer == ""


def test_json_has_null_for_numbers_that_are_not_finite():
    report = Report("x", [Row("a", "torch", Verdict.NOT_RUN), row("b", "torch", Difference(np.inf, 1, 9), LAYER)])
    document = json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert document["passed"] is False
    assert document["rows"][0]["absolute"] is None
    assert document["rows"][0]["verdict"] == "NOT RUN"
