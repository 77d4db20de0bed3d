"""Times taken in turns."""

import pytest

from maam._system import interleave, ratios


class Clock:
    """A clock that stands still but for what functions say they take."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def __call__(self):
        return self.now

    def function(self, name, seconds):
        def call():
            self.order.append(name)
            self.now += seconds

        return call


def test_each_round_runs_all():
    clock = Clock()
    times = interleave({"a": clock.function("a", 0.1), "b": clock.function("b", 0.3)}, rounds=3, least=0.3, clock=clock)
    assert times == {"a": [pytest.approx(0.1)] * 3, "b": [pytest.approx(0.3)] * 3}
    assert clock.order == ["a"] * 2 + ["b"] * 2 + (["a"] * 3 + ["b"]) * 3


def test_ratios_are_within_a_round():
    times = {"base": [1.0, 10.0, 2.0], "fast": [0.5, 5.0, 1.0], "odd": [1.0, 1.0, 1.0]}
    assert ratios(times, "base") == {"base": 1.0, "fast": 2.0, "odd": 2.0}
