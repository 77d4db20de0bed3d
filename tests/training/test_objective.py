"""Label smoothing, clipping, averaging and loss scaling of a training step, equal in all frameworks."""

import functools

import numpy as np
import pytest

from maam import spec
from maam.backend.protocol import LossScale, OptimizerState
from maam.backend.registry import load_training_backend
from maam.training import Objective, Optimizer, Recipe
from maam.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

NODE = spec.preset("t_cnn", base="maam_digits", channels=16)
SGD = Optimizer(lr=0.05, nesterov=True, weight_decay=5e-3)
DECAYS = (0.1, 0.5, 0.9)
OBJECTIVES = [Objective(), Objective(label_smoothing=0.2), Objective(clip_norm=0.1), Objective(average=True)]
OBJECTIVES += [Objective(average=True, lookahead=True), Objective(freeze=("agent.conv1.*", "*.bn2.weight"))]


def make_trainer(framework, objective, optimizer=SGD, node=NODE):
    backend = load_training_backend(framework)
    runner = backend.make_training_runner(node, seed=0, device=backend.select_device("cpu"))
    return runner.trainer(optimizer, objective)


def batches(count):
    rng = np.random.default_rng(1)
    return [(rng.random((16, 1, 8, 8), np.float32), rng.integers(0, 10, 16).astype(np.int32)) for _ in range(count)]


@functools.cache
def run(framework, objective):
    """Make three steps; return the trainer, losses and accuracies, and the arrays and the state after each step."""
    trainer = make_trainer(framework, objective)
    found, arrays, states = [], [trainer.runner.read_arrays()], [trainer.read_state()]
    for batch, decay in zip(batches(3), DECAYS, strict=True):
        found.append(trainer.update(trainer.prepare(*batch), 0.05, decay))
        arrays.append(trainer.runner.read_arrays())
        states.append(trainer.read_state())
    return trainer, trainer.fetch(found), arrays, states


@pytest.mark.parametrize(
    "objective", [*OBJECTIVES[4:], *(pytest.param(one, marks=pytest.mark.slow) for one in OBJECTIVES[:4])]
)
def test_frameworks_agree(objective):
    pytest.importorskip("mindspore")
    torch, mindspore = (run(name, objective) for name in ("torch", "mindspore"))
    np.testing.assert_allclose(torch[1], mindspore[1], rtol=1e-5, atol=1e-6)
    one, other = torch[3][-1].average, mindspore[3][-1].average
    assert one.keys() == other.keys()
    assert bool(one) == objective.average
    for name, array in one.items():
        np.testing.assert_allclose(array, other[name], rtol=1e-4, atol=2e-5)
    x = batches(1)[0][0]
    np.testing.assert_allclose(torch[0].predict(x), mindspore[0].predict(x), rtol=1e-3, atol=1e-4)


@pytest.mark.slow_in("mindspore")
def test_lookahead_replaces_the_weights_by_their_average(framework):
    plain, ahead = (run(framework, Objective(average=True, lookahead=flag)) for flag in (False, True))
    for name, average in ahead[3][-1].average.items():
        np.testing.assert_array_equal(ahead[2][-1][name], average)
    np.testing.assert_array_equal(plain[1][0], ahead[1][0])
    assert plain[1][1, 0] != ahead[1][1, 0]
    trainer = make_trainer(framework, Objective(average=True, lookahead=True))
    first = trainer.read_state().average
    trainer.update(trainer.prepare(*batches(1)[0]), 0.05, None)  # a step without averaging
    for name, average in trainer.read_state().average.items():
        np.testing.assert_array_equal(average, first[name])
    assert any(not np.array_equal(trainer.runner.read_arrays()[name], array) for name, array in first.items())


@pytest.mark.slow_in("mindspore")
def test_smoothing_and_shares_of_classes_as_labels(framework):
    """Labels as shares give the loss of the labels; mixed ones give the mixed loss. Smoothing changes the loss only."""
    (x, labels), losses = batches(1)[0], {}
    own, other = np.eye(10, dtype=np.float32)[labels], np.eye(10, dtype=np.float32)[(labels + 1) % 10]
    for name, target in {"int": labels, "own": own, "other": other, "mixed": 0.75 * own + 0.25 * other}.items():
        trainer = make_trainer(framework, Objective(label_smoothing=0.2))
        losses[name], right = trainer.fetch([trainer.update(trainer.prepare(x, target), 0.05)])[0]
        assert 0 <= right <= 1
    assert losses["own"] == pytest.approx(losses["int"], rel=1e-5)
    assert losses["mixed"] == pytest.approx(0.75 * losses["own"] + 0.25 * losses["other"], rel=1e-5)
    assert losses["other"] != pytest.approx(losses["own"], rel=1e-3)
    plain, smoothed = (run(framework, Objective(label_smoothing=share))[1][0] for share in (0.0, 0.2))
    assert plain[0] != smoothed[0]
    assert plain[1] == smoothed[1]


def test_clipping_limits_the_norm_of_the_gradients(framework):
    lengths = []
    for objective in (Objective(), Objective(clip_norm=0.1)):
        _, _, arrays, states = run(framework, objective)
        moved = states[1].moments["momentum_buffer"]  # gradient and weight decay
        gradients = {n: m - (5e-3 * arrays[0][n] if m.ndim > 1 else 0) for n, m in moved.items()}
        lengths.append(np.sqrt(sum(float((array.astype(np.float64) ** 2).sum()) for array in gradients.values())))
    assert lengths[0] > 0.2
    assert lengths[1] == pytest.approx(0.1, rel=1e-3)


def test_average_follows_its_definition_and_predicts(framework):
    trainer, _, arrays, states = run(framework, Objective(average=True))
    expected = {name: array.astype(np.float64) for name, array in arrays[0].items()}
    for after, decay in zip(arrays[1:], DECAYS, strict=True):
        expected = {name: decay * expected[name] + (1 - decay) * array for name, array in after.items()}
    for name, array in states[-1].average.items():
        np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-6)
    x = batches(1)[0][0]
    averaged = trainer.predict(x)
    trainer.runner.write_arrays(states[-1].average)
    np.testing.assert_allclose(trainer.runner.forward(x), averaged, rtol=1e-4, atol=1e-5)
    trainer.runner.write_arrays(arrays[-1])
    assert not np.allclose(trainer.runner.forward(x), averaged, rtol=1e-4, atol=1e-5)


def test_loss_scale_grows_shrinks_and_is_restored(framework):
    trainer = make_trainer(framework, Objective(precision="fp16"))
    state = trainer.read_state()
    assert state.loss_scale == LossScale(65536.0, 0)
    batch = trainer.prepare(*batches(1)[0])
    found = trainer.fetch([trainer.update(batch, 0.01) for _ in range(8)])
    assert 1.5 < found[0, 0] < 4  # the loss itself, not the scaled one
    assert found[-1, 0] < 0.8 * found[0, 0]  # half precision learns
    trainer.write_state(OptimizerState(1, state.moments, {}, LossScale(1024.0, 1999)))
    trainer.update(batch, 0.01)
    assert trainer.read_state().loss_scale == LossScale(2048.0, 0)
    before = trainer.runner.read_arrays()
    trainer.write_state(OptimizerState(2, trainer.read_state().moments, {}, LossScale(3e38, 0)))
    trainer.update(batch, 0.01)
    assert trainer.read_state().loss_scale.scale == pytest.approx(1.5e38)
    after, trainable = trainer.runner.read_arrays(), [p.name for p in NODE.parameters() if p.trainable]
    assert all(np.array_equal(before[name], after[name]) for name in trainable)  # an overflow changes no weight


@pytest.mark.parametrize("name", ["adamw", pytest.param("adam", marks=pytest.mark.slow)])
def test_optimizer_does_not_count_skipped_steps(framework, name, tmp_path):
    """A trainer restored from a checkpoint after overflows makes the same step, bit for bit."""
    optimizer = Optimizer(name=name, lr=0.003, weight_decay=0.01)
    linear = spec.Linear(in_features=64, out_features=10)
    node = spec.Sequential(children={"flatten": spec.Flatten(), "linear": linear})
    whole, part = (make_trainer(framework, Objective(precision="fp16"), optimizer, node) for _ in range(2))
    whole.write_state(OptimizerState(0, whole.read_state().moments, {}, LossScale(2.0**24, 0)))
    *first, last = batches(10)
    for batch in first:
        whole.update(whole.prepare(*batch), 0.003)
    recipe = Recipe(optimizer=optimizer, precision="fp16")
    write_checkpoint(tmp_path / "c", Checkpoint(node, recipe, whole.runner.read_arrays(), whole.read_state()))
    found = read_checkpoint(tmp_path / "c")
    assert 0 < found.state.skipped < found.state.step == 9
    part.runner.write_arrays(found.arrays)
    part.write_state(found.state)
    for trainer in (whole, part):
        trainer.update(trainer.prepare(*last), 0.003)
    one, other = (trainer.runner.read_arrays() for trainer in (whole, part))
    assert all(one[array].tobytes() == other[array].tobytes() for array in one)


def test_bfloat16_in_torch():
    trainer = make_trainer("torch", Objective(precision="bf16"))
    found = trainer.fetch([trainer.update(trainer.prepare(*batches(1)[0]), 0.01) for _ in range(8)])
    assert found[0, 0] == pytest.approx(run("torch", Objective())[1][0, 0], rel=0.02)
    assert found[-1, 0] < 0.8 * found[0, 0]
