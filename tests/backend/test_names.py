"""The frameworks' names of parameters, on which checkpoints depend: keys of state_dict, and MindSpore's names."""

import pytest

from maam import spec
from tests.frameworks import VARIANTS

NORM = {
    "torch": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "mindspore": ("moving_mean", "moving_variance", "gamma", "beta"),
}


def block(backend, path, suffixes="12", parts=("",)):
    """Return the names in a block of convolutions of one or several parts, each with a batch norm."""
    found = []
    for suffix in suffixes:
        found += [f"{path}.conv{suffix}{part}.weight" for part in parts]
        found += [f"{path}.bn{suffix}.{name}" for name in NORM[backend.name]]
    return found


def names(backend, model):
    return list(backend.state(model))


def test_of_a_layer_alone_and_inside_a_network(backend):
    expected = ["agents.alpha", *block(backend, "agents.0"), *block(backend, "reduce", [""])]
    layers = [backend.maam.MAAM(4, num_agents=1) for _ in range(2)]
    assert names(backend, layers[0]) == expected
    assert names(backend, backend.maam.build(spec.maam(4, num_agents=1), seed=1)) == expected
    assert names(backend, backend.chain(*layers)) == [f"{index}.{name}" for index in "01" for name in expected]


def test_of_options(backend):
    found = names(backend, backend.maam.MAAM(4, num_agents=2, fusion="dynamic", reduce=False))
    weighting = [f"agents.weighting.fc.{name}" for name in ("weight", "bias")]
    assert found == [*block(backend, "agents.0"), *block(backend, "agents.1"), *weighting]
    found = names(backend, backend.maam.MAAM(4, num_agents=1, depthwise=True, reduce=False, fusion="mean"))
    assert found == block(backend, "agents.0", parts=(".depthwise", ".pointwise"))
    found = names(backend, backend.maam.MAAM(4, num_agents=1, norm_layer="identity"))
    convs = [f"{conv}.{name}" for conv in ("agents.0.conv1", "agents.0.conv2") for name in ("weight", "bias")]
    assert found == ["agents.alpha", *convs, "reduce.conv.weight", "reduce.conv.bias"]


def test_of_a_recurrent_model(backend):
    recurrent = [f"rnn.{kind}_{what}_l0" for kind in ("weight", "bias") for what in ("ih", "hh")]
    found = names(backend, backend.maam.build(spec.preset("rnn", image_size=8)))
    assert sorted(found) == sorted([*recurrent, "fc.weight", "fc.bias"])


@pytest.mark.parametrize("name", VARIANTS)
def test_canonical_names_are_complete(backend, name):
    model = backend.maam.build(spec.maam(4, 8, **VARIANTS[name]))
    canonical = {p.name for p in model.spec.parameters()}
    assert set(backend.read(model)) == canonical
    own = [name for name in names(backend, model) if not name.endswith("num_batches_tracked")]
    assert len(own) == len(set(own)) == len(canonical)
    assert backend.name == "mindspore" or set(own) == canonical
