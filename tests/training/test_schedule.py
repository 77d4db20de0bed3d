"""Schedules of the learning rate compared with PyTorch's."""

import pytest

from maam.training import learning_rate
from maam.training.recipe import Schedule

torch = pytest.importorskip("torch")
schedulers = torch.optim.lr_scheduler
STEPS, EPOCH, PEAK = 120, 10, 0.4


def theirs(make):
    """Return the learning rates of a PyTorch scheduler."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK, momentum=0.9)
    scheduler, found = make(optimizer), []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def ours(**fields):
    """Return the learning rates of a schedule of maam."""
    return [learning_rate(Schedule(**fields), PEAK, step, STEPS, EPOCH) for step in range(STEPS)]


def test_cosine():
    expected = theirs(lambda o: schedulers.CosineAnnealingLR(o, STEPS))
    assert ours(name="cosine", warmup=0.0) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    warm = theirs(lambda o: schedulers.LinearLR(o, 0.1, total_iters=30))[:30]
    rest = theirs(lambda o: schedulers.CosineAnnealingLR(o, 90))[:90]
    assert ours(name="cosine", warmup=0.25, start=0.1) == pytest.approx(warm + rest, abs=1e-12)


def test_steps_and_constant():
    expected = theirs(lambda o: schedulers.StepLR(o, 3 * EPOCH, 0.1))
    assert ours(name="step", step_epochs=3) == pytest.approx(expected)
    assert set(ours(name="constant")) == {PEAK}


def test_one_cycle():
    """PyTorch counts to total - 1 and ends slightly above 0; otherwise the curve is the same."""
    found = ours(name="one_cycle", warmup=0.3, start=0.04)
    shape = {"pct_start": 37 / 121, "div_factor": 25, "final_div_factor": 1e9}
    expected = theirs(lambda o: schedulers.OneCycleLR(o, PEAK, STEPS + 1, **shape))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert max(found) == found[36] == pytest.approx(PEAK)


@pytest.mark.parametrize("name", ["one_cycle", "cosine"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_ends(name, warmup):
    found = ours(name=name, warmup=warmup)
    assert all(0 <= rate <= PEAK for rate in found)
    assert (found[0] == PEAK) == (warmup == 0)
