"""What a step does besides the gradient is the same in both frameworks: smoothing, clipping, averaging, loss scale."""

import importlib

import numpy as np
import pytest

from maam import spec
from maam.backend.protocol import LossScale, OptimizerState
from maam.training import Objective, Optimizer, Recipe
from maam.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

NODE = spec.preset("maam_digits")
SGD = Optimizer(lr=0.05, nesterov=True, weight_decay=5e-3)


def trainer_of(framework, objective, optimizer=SGD, node=NODE):
    pytest.importorskip(framework)
    module = importlib.import_module(f"maam.{framework}.devices")
    return module.make_runner(node, seed=0, device=module.select_device("cpu")).trainer(optimizer, objective)


def batches(count):
    rng = np.random.default_rng(1)
    return [(rng.random((16, 1, 8, 8), np.float32), rng.integers(0, 10, 16).astype(np.int32)) for _ in range(count)]


def run(framework, objective, count=3, decay=0.5):
    trainer = trainer_of(framework, objective)
    found = [trainer.update(trainer.prepare(*batch), 0.05, decay) for batch in batches(count)]
    return trainer, trainer.fetch(found)


@pytest.mark.parametrize(
    "objective",
    [
        Objective(),
        Objective(label_smoothing=0.2),
        Objective(clip_norm=0.1),
        Objective(average=True),
    ],
)
def test_both_frameworks_agree(objective):
    (torch, torch_found), (mindspore, mindspore_found) = (run(name, objective) for name in ("torch", "mindspore"))
    np.testing.assert_allclose(torch_found, mindspore_found, rtol=1e-5, atol=1e-6)
    states = torch.read_state(), mindspore.read_state()
    for one, other in ((s.average, t.average) for s, t in [states]):
        assert one.keys() == other.keys()
        assert bool(one) == objective.average
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=2e-5)
    x = batches(1)[0][0]
    np.testing.assert_allclose(torch.predict(x), mindspore.predict(x), rtol=1e-3, atol=1e-4)


def test_smoothing_raises_the_loss_of_the_sure(framework):
    plain, smoothed = (run(framework, Objective(label_smoothing=share))[1][0] for share in (0.0, 0.5))
    assert plain[0] != smoothed[0]
    assert plain[1] == smoothed[1]  # the accuracy is that of the labels


def test_clipping_shortens_the_step(framework):
    before = spec.draw(NODE.parameters(), 0)
    lengths = []
    for clip in (None, 0.01):
        trainer = run(framework, Objective(clip_norm=clip), count=1)[0]
        moved = trainer.read_state().moments["momentum_buffer"]
        decayed = {n: m - (5e-3 * before[n] if before[n].ndim > 1 else 0) for n, m in moved.items()}
        lengths.append(np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in decayed.values())))
    assert lengths[0] > 0.1
    assert lengths[1] == pytest.approx(0.01, rel=1e-3)


def test_the_average_follows_its_definition(framework):
    trainer = trainer_of(framework, Objective(average=True))
    expected = {name: array.astype(np.float64) for name, array in trainer.runner.read_arrays().items()}
    for batch, decay in zip(batches(3), (0.1, 0.5, 0.9), strict=True):
        trainer.update(trainer.prepare(*batch), 0.05, decay)
        for name, array in trainer.runner.read_arrays().items():
            expected[name] = decay * expected[name] + (1 - decay) * array
    for name, array in trainer.read_state().average.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)


def test_predictions_come_from_the_average(framework):
    trainer = run(framework, Objective(average=True), decay=0.9)[0]
    x = batches(1)[0][0]
    averaged = trainer.predict(x)
    trainer.runner.write_arrays(trainer.read_state().average)
    np.testing.assert_allclose(trainer.runner.forward(x), averaged, rtol=1e-4, atol=1e-5)


def test_loss_scale_grows_shrinks_and_is_kept(framework):
    trainer = trainer_of(framework, Objective(precision="fp16"))
    state = trainer.read_state()
    assert state.loss_scale == LossScale(65536.0, 0)
    trainer.write_state(OptimizerState(1, state.moments, {}, LossScale(1024.0, 1999)))
    (batch,) = batches(1)
    found = trainer.fetch([trainer.update(trainer.prepare(*batch), 0.01)])
    assert trainer.read_state().loss_scale == LossScale(2048.0, 0)
    assert 1.5 < found[0, 0] < 4  # the loss itself, not the scaled one
    before = trainer.runner.read_arrays()
    trainer.write_state(OptimizerState(2, trainer.read_state().moments, {}, LossScale(3e38, 0)))
    trainer.update(trainer.prepare(*batch), 0.01)
    assert trainer.read_state().loss_scale.scale == pytest.approx(1.5e38)
    trainable = {p.name for p in NODE.parameters() if p.trainable}
    after = trainer.runner.read_arrays()
    assert all(np.array_equal(before[name], after[name]) for name in trainable)  # an overflow is no step


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_skipped_steps_are_not_counted_by_the_optimizer(framework, name, tmp_path):
    """A trainer that goes on from a checkpoint after overflows makes the same step, bit for bit."""
    optimizer, objective = Optimizer(name=name, lr=0.003, weight_decay=0.01), Objective(precision="fp16")
    children = {"flatten": spec.Flatten(), "linear": spec.Linear(in_features=64, out_features=10)}
    node = spec.Sequential(children=children)
    whole, part = (trainer_of(framework, objective, optimizer, node) for _ in range(2))
    start = OptimizerState(0, whole.read_state().moments, {}, LossScale(2.0**24, 0))
    whole.write_state(start)
    *first, last = batches(10)
    for batch in first:
        whole.update(whole.prepare(*batch), 0.003)
    recipe = Recipe(optimizer=optimizer, precision="fp16")
    write_checkpoint(tmp_path / "c", Checkpoint(node, recipe, whole.runner.read_arrays(), whole.read_state()))
    found = read_checkpoint(tmp_path / "c")
    assert found.state.step == 9
    assert 0 < found.state.skipped < 9
    part.runner.write_arrays(found.arrays)
    part.write_state(found.state)
    for trainer in (whole, part):
        trainer.update(trainer.prepare(*last), 0.003)
    one, other = (trainer.runner.read_arrays() for trainer in (whole, part))
    assert all(one[array].tobytes() == other[array].tobytes() for array in one)


def test_half_precision_learns(framework):
    trainer = trainer_of(framework, Objective(precision="fp16"))
    (batch,) = batches(1)
    found = trainer.fetch([trainer.update(trainer.prepare(*batch), 0.01) for _ in range(8)])
    assert found[-1, 0] < 0.8 * found[0, 0]


def test_mixed_precision_of_torch():
    trainer = trainer_of("torch", Objective(precision="bf16"))
    (batch,) = batches(1)
    found = trainer.fetch([trainer.update(trainer.prepare(*batch), 0.01) for _ in range(8)])
    plain = run("torch", Objective(), count=1)[1]
    assert found[0, 0] == pytest.approx(plain[0, 0], rel=0.02)
    assert found[-1, 0] < 0.8 * found[0, 0]
