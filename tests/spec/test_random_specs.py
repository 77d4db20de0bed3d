"""Random specs: documents, parameter names, input rules and shapes."""

import pickle
from typing import get_args

import pytest
from hypothesis import Phase, find, given, settings

from maam.spec import Node, input_rule, parse_json
from maam.spec.containers import Merge
from tests.strategies import specs, without_dropout

SHORT = settings(max_examples=25, deadline=None)
SEARCH = settings(max_examples=2000, deadline=None, database=None, derandomize=True, phases=[Phase.generate])


@SHORT
@given(specs())
def test_a_document_gives_an_equal_spec(example):
    spec, _ = example
    again = parse_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.to_json() == spec.to_json()
    assert pickle.loads(pickle.dumps(spec)) == spec


@SHORT
@given(specs())
def test_parameter_names_are_unique(example):
    names = [parameter.name for parameter in example[0].parameters()]
    assert len(set(names)) == len(names)


@SHORT
@given(specs())
def test_the_input_rule_accepts_all_inputs_of_the_spec(example):
    spec, shape = example
    assert input_rule(spec).accepts((2, *shape))


@SHORT
@given(specs())
def test_shape_and_macs_are_those_of_the_torch_module(example):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    from maam.torch import build

    spec, shape = example
    module = build(spec, seed=0).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = module(torch.zeros(2, *shape))
    assert tuple(output.shape) == (2, *spec.output_shape(shape))
    assert counter.get_total_flops() == 2 * 2 * spec.macs(shape)  # a batch of two; a MAC is two flops
    assert {name for name in module.state_dict() if not name.endswith("num_batches_tracked")} == {
        parameter.name for parameter in spec.parameters()
    }


@SHORT
@given(specs())
def test_without_dropout_changes_no_other_layer(example):
    spec, shape = example
    quiet = without_dropout(spec)
    assert not any(getattr(node, "p", 0.0) for _, node in quiet.walk())
    assert [path for path, _ in quiet.walk()] == [path for path, _ in spec.walk()]
    assert quiet.output_shape(shape) == spec.output_shape(shape)
    assert quiet.parameters() == spec.parameters()


KINDS = sorted(kind for kind, cls in Node.kinds.items() if cls.__module__.startswith("maam."))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_layer_comes_up(kind):
    assert find(specs(), lambda example: kind in {node.kind for _, node in example[0].walk()}, settings=SEARCH)


@pytest.mark.parametrize("merge", get_args(Merge))
def test_every_merge_comes_up(merge):
    assert find(
        specs(), lambda example: merge in {getattr(n, "merge", "") for _, n in example[0].walk()}, settings=SEARCH
    )
