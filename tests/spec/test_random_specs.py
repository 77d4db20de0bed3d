"""Random specs: documents, parameter names, input rules and shapes."""

import pickle
from typing import get_args

import pytest
from hypothesis import Phase, find, given, settings

from maam.spec import Node, input_rule
from maam.spec.containers import Merge
from tests.strategies import specs, without_dropout

SEARCH = settings(max_examples=2000, deadline=None, database=None, derandomize=True, phases=[Phase.generate])


@given(specs())
def test_documents_names_input_rules_and_copies_without_dropout(example):
    spec, shape = example
    again = pickle.loads(pickle.dumps(spec))  # by its JSON
    assert (again, hash(again), again.to_json()) == (spec, hash(spec), spec.to_json())
    names = [parameter.name for parameter in spec.parameters()]
    assert len(set(names)) == len(names)
    assert input_rule(spec).accepts((2, *shape))
    quiet = without_dropout(spec)
    assert not any(getattr(node, "p", 0.0) for _, node in quiet.walk())
    assert [path for path, _ in quiet.walk()] == [path for path, _ in spec.walk()]
    assert quiet.output_shape(shape) == spec.output_shape(shape)
    assert quiet.parameters() == spec.parameters()


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
    names = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert names == {parameter.name for parameter in spec.parameters()}


KINDS = sorted(kind for kind, cls in Node.kinds.items() if cls.__module__.startswith("maam."))


@pytest.mark.slow
def test_every_kind_of_layer_and_merge_is_generated():
    missing = {*(("kind", kind) for kind in KINDS), *(("merge", merge) for merge in get_args(Merge))}

    def completes(example):
        for _, node in example[0].walk():
            missing.difference_update((field, getattr(node, field, "")) for field in ("kind", "merge"))
        return not missing

    assert find(specs(), completes, settings=SEARCH), missing
