"""Cells as MindSpore's users use them: gradients, training, native checkpoints."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import dataset as ds
from mindspore import nn, train

from maam import spec
from maam.backend.optimizer import Optimizer
from maam.backend.protocol import Objective
from maam.errors import SpecError
from maam.mindspore import MAAM, build
from maam.mindspore.arrays import parameters_by_name, read_arrays
from maam.mindspore.runner import Runner, _Average
from tests.frameworks import VARIANTS, MindSpore

pytestmark = pytest.mark.usefixtures("mode")
graph_first = pytest.mark.slow_in("pynative")
OPTIONS = [{"num_agents": 2}, {"fusion": "dynamic", "scales": (1, 2, 3)}, {"num_agents": 2, "depthwise": True}]


def slopes(judge, x, weights, name, step=1e-5):
    """Return the central difference of the reference's loss in the first element of an array."""
    array, values = judge.arrays[name].copy(), []
    for change in (step, -step):
        judge.arrays[name] = array + change * (np.arange(array.size) == 0).reshape(array.shape)
        values.append((judge(x, training=True) * weights).sum())
    judge.arrays[name] = array
    return (values[0] - values[1]) / (2 * step)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients(options, reference, scramble, x):
    cell = scramble(build(spec.maam(4, act_layer="silu", **options)))  # smooth, so that differences approach gradients
    judge, weights = reference(cell), np.linspace(-1, 2, x.size).reshape(x.shape).astype(np.float32)
    found = MindSpore().step(cell.set_train(), x, x.shape)
    assert (found["output"] * weights).sum() == pytest.approx((judge(x, training=True) * weights).sum(), rel=1e-4)
    trained = {name: found[p.name] for name, p in parameters_by_name(cell).items() if p.requires_grad}
    for name, gradient in trained.items():
        tolerance = 1e-3 * max(float(np.abs(gradient).max()), 1)
        assert gradient.flat[0] == pytest.approx(slopes(judge, x, weights, name), abs=tolerance), name
        assert gradient.any(), name


@graph_first
def test_model(small, reference):
    labels = np.arange(24, dtype=np.int32) % 3  # a bright stripe at one of three heights
    x = np.random.default_rng(7).normal(0, 0.3, (24, 1, 8, 8)).astype(np.float32)
    for image, label in zip(x, labels, strict=True):
        image[:, 3 * label : 3 * label + 2] += 1
    pairs = [(image, np.asarray(label)) for image, label in zip(x, labels, strict=True)]  # with numpy 2, not scalars
    batches = ds.GeneratorDataset(pairs, ["x", "y"], shuffle=False).batch(12)
    net, losses = build(small, seed=1), []
    record = train.LambdaCallback(
        on_train_step_end=lambda run: losses.append(run.original_args().net_outputs.asnumpy())
    )
    metrics = {"accuracy": train.Accuracy(), "loss": train.Loss()}
    model = train.Model(net, nn.CrossEntropyLoss(), nn.SGD(net.trainable_params(), 0.2), metrics)
    untrained = model.eval(batches, dataset_sink_mode=False)["loss"]
    model.train(6, batches, callbacks=[record], dataset_sink_mode=False)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    found = model.eval(batches, dataset_sink_mode=False)
    logits = reference(net)(x)  # in inference mode, with the running statistics of the training
    entropy = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]
    assert found["loss"] == pytest.approx(entropy.mean(), rel=1e-4)
    assert found["accuracy"] == pytest.approx((logits.argmax(1) == labels).mean())
    assert found["loss"] < untrained


def test_recompute(scramble, x):
    plain, other = (scramble(build(spec.maam(4, num_agents=2, scales=(1, 2)))).set_train() for _ in range(2))
    other.recompute()
    np.testing.assert_equal(*(MindSpore().step(cell, x, x.shape) for cell in (other, plain)))
    np.testing.assert_equal(read_arrays(other), read_arrays(plain))  # running statistics are updated once


@pytest.mark.parametrize("options", [{"use_reentrant": False}, {"output_recompute": True}])
def test_recomputation_that_would_update_statistics_twice_is_refused(options):
    with pytest.raises(SpecError, match=r"^recompute: use_reentrant=False and output_recompute=True would update"):
        MAAM(4).recompute(**options)


def many(values):
    """Return 600 parameters: MindSpore refuses graphs that nest over 1,000 calls, as a loop over them would."""
    return {f"w{index}": ms.Parameter(ms.Tensor([float(v)], ms.float32), f"w{index}") for index, v in enumerate(values)}


@graph_first
def test_graphs_of_many_tensors_are_not_nested(mode):
    trainer = Runner(build(spec.Linear(in_features=2, out_features=2), seed=0)).trainer(
        Optimizer(name="adam", weight_decay=0.5), Objective(clip_norm=1.0)
    )
    trainer._weights, trainer._penalties = ms.ParameterTuple(many([1] * 600).values()), (0.5,) * 600
    gradients = tuple(ms.Tensor([2.0 + index % 2], ms.float32) for index in range(600))
    found = MindSpore().compile(trainer._treated)(gradients, ms.Tensor(1.0, ms.float32))
    norm = np.sqrt(300 * (4.0 + 9.0))
    for index in (0, 1, 599):
        assert found[index].asnumpy() == pytest.approx((2.0 + index % 2) / norm + 0.5, rel=1e-5)


@graph_first
def test_the_averages_of_many_tensors_move(mode):
    own = many(range(600))
    average = _Average(own, lookahead=False)
    for parameter in own.values():
        parameter.set_data(parameter + 1)
    average(ms.Tensor(0.25, ms.float32))
    assert [float(array[0]) for array in average.read().values()] == [index + 0.25 for index in range(600)]


# MindSpore 2.8 asks its threads for their names in a deprecated way whenever it saves.
@pytest.mark.filterwarnings("ignore:getName.. is deprecated:DeprecationWarning")
class TestNativeCheckpoints:
    @pytest.mark.parametrize("mode", ["graph"], indirect=True)
    @pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
    @pytest.mark.parametrize("name", ["softmax", "dynamic", "scales", "depthwise", "no_norm"])
    def test_round_trip(self, scramble, name, suffix):
        cell, other = scramble(build(spec.maam(4, 8, **VARIANTS[name]))), MAAM(4, 8, **VARIANTS[name])
        ms.save_checkpoint(cell, f"layer.{suffix}", format=suffix)
        saved = ms.load_checkpoint(f"layer.{suffix}", format=suffix)
        assert ms.load_param_into_net(other, saved, strict_load=True) == ([], [])
        np.testing.assert_equal(read_arrays(other), read_arrays(cell))

    def test_a_network_that_contains_the_layer(self, network, scramble, x):
        first, second = network(scramble(MAAM(4, 8, num_agents=1))), network(MAAM(4, 8, num_agents=1))
        first.set_train()(ms.Tensor(x))  # so that running statistics differ from the initial ones
        ms.save_checkpoint(first, "net.ckpt")
        saved = ms.load_checkpoint("net.ckpt")
        assert ms.load_param_into_net(second, saved, strict_load=True) == ([], [])
        expected = first.set_train(False)(ms.Tensor(x)).asnumpy()
        np.testing.assert_array_equal(second.set_train(False)(ms.Tensor(x)).asnumpy(), expected)
        assert np.abs(expected).max() > 0.1
