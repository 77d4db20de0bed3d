"""Layer classes as Python sees them: signature, arguments, repr, subclasses, lookup, outputs, names of parameters."""

import copy
import inspect
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from maam import spec
from maam.backend.adapter import first_of, with_first
from maam.backend.layers import bind_arguments, check_keeps_shape, find_layer, layer_docstring, layers_in
from maam.errors import ArgumentError, PresetError, SpecError
from tests.errors import error_of
from tests.frameworks import VARIANTS

ROOT = Path(__file__).parents[2]
PLAIN = (
    "(in_channels, out_channels=None, *, hidden_channels=None, num_agents=3, kernel_sizes=3, scales=1, pool=1, "
    "pool_before_norm=False, fusion='softmax', reduce=True, depthwise=False, act_layer='relu', norm_layer='batch_norm'"
)
NORM = {
    "torch": ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"),
    "mindspore": ("moving_mean", "moving_variance", "gamma", "beta"),
}
"""The framework's names of the arrays of batch norm, in its order."""
MINDSPORE = {"running_mean": "moving_mean", "running_var": "moving_variance", "weight": "gamma", "bias": "beta"}
OWN = {"torch": ", device=None, dtype=None)", "mindspore": ")"}


@spec.composite
def gate(channels: int, *, act_layer: spec.primitives.ActivationName = "sigmoid") -> spec.Scale:
    """Return x * act(conv1x1(x))."""
    conv = spec.Conv2d(in_channels=channels, out_channels=1, kernel_size=1)
    return spec.Scale(children={"conv": conv, "act": spec.Activation(function=act_layer)})


def bare(signature):
    return str(inspect.Signature([p.replace(annotation=p.empty) for p in signature.parameters.values()]))


class TestSignature:
    def test_arguments_and_types(self, backend):
        signature = inspect.signature(backend.maam.MAAM)
        assert bare(signature) == PLAIN + OWN[backend.name]
        found = {name: str(p.annotation) for name, p in signature.parameters.items()}
        assert found["in_channels"] == "<class 'int'>"
        assert found["fusion"] == "typing.Literal['softmax', 'mean', 'dynamic']"
        names = "typing.Literal['batch_norm', 'identity']"
        assert found["norm_layer"].startswith(f"typing.Union[{names}, type[{backend.name}.nn.")

    def test_of_subclasses_and_composites_of_ones_own(self, backend):
        same = type("Same", (backend.maam.MAAM,), {})
        own = type("Gate", (backend.layers.Layer,), {}, composite=gate)
        assert bare(inspect.signature(same)) == PLAIN + OWN[backend.name]
        assert bare(inspect.signature(own)) == "(channels, *, act_layer='sigmoid'" + OWN[backend.name]
        assert inspect.getdoc(own) == "X * act(conv1x1(x))."

    def test_stub_files_are_up_to_date(self, backend):
        from tools import stubs

        written = (ROOT / "maam" / backend.name / "layers.pyi").read_text(encoding="utf-8")
        assert stubs.stub(backend.name) == written, "run: python tools/stubs.py"


class TestDocstring:
    @pytest.mark.parametrize("name", ["MAAM", "MAF", "MAFC", "MAFB", "SE", "CBAM"])
    def test_comes_from_the_composite_with_a_native_example(self, backend, name):
        text = inspect.getdoc(getattr(backend.maam, name))
        for part in ("Args:\n", "Raises:\n", "Example:", f">>> from maam.{backend.name} import {name}"):
            assert text.count(part) == 1

    def test_starts_with_a_noun(self):
        found = layer_docstring("Return a layer.\n\nExample:\n    spec", "Own.\n\nExample:\n    native")
        assert found == "Layer.\n\nExample:\n    native\n"
        assert layer_docstring("Return a layer.", None) == "Layer."


class TestArguments:
    def test_spec_and_initial_mode(self, backend, small):
        layer, preset = backend.maam.MAAM(4, scales=(1, 2, 1)), backend.maam.build("maam_digits")
        assert layer.spec == spec.maam(4, scales=(1, 2, 1))
        assert preset.spec == spec.preset("maam_digits")
        for model in (layer, preset):
            assert {module.training for module in backend.modules(model)} == {backend.starts_in_training}
        for node in (small, spec.Activation(function="tanh")):
            assert backend.maam.build(node).spec is node

    def test_activations_and_norms_by_class(self, backend):
        for act, name in ((backend.nn.SiLU, "silu"), (backend.nn.LeakyReLU, "leaky_relu"), (backend.nn.ReLU, "relu")):
            layer = backend.maam.MAAM(4, act_layer=name)
            assert backend.maam.MAAM(4, act_layer=act).spec == layer.spec
            assert type(backend.at(layer, "agents.0.act1")) is act
        assert backend.maam.SE(4, act_layer=backend.hard_swish).spec == spec.se(4, act_layer="hard_swish")
        assert backend.maam.MAAM(4, norm_layer=backend.nn.BatchNorm2d).spec == spec.maam(4)
        layer = backend.maam.MAAM(4, norm_layer=backend.nn.Identity)
        assert layer.spec == spec.maam(4, norm_layer="identity")
        assert backend.nn.BatchNorm2d not in backend.kinds(layer)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"num_agent": 3}, "unexpected keyword argument 'num_agent'"),
            ({"fusion": "max"}, "fusion: .*'softmax', 'mean' or 'dynamic', got 'max'"),
            ({"kernel_sizes": 2}, "expected an odd kernel size"),
            ({"kernel_sizes": (3, 3)}, "one for each of 3 agents, got 2"),
            ({"num_agents": 0}, "num_agents"),
            ({"act_layer": "Mish"}, r"act_layer: \w+\.nn\..*Mish is not supported; expected one of relu"),
            ({"act_layer": "softmax"}, "act_layer: input should be 'relu', .*, got 'softmax'"),
            ({"norm_layer": "LayerNorm"}, r"norm_layer: \w+\.nn\..*LayerNorm is not supported"),
            ({"in_channels": 4}, "multiple values for argument 'in_channels'"),
            ({"reduction": 4}, "in place of reduction use rd_ratio = 1 / reduction; arguments: in_channels, "),
            ({"stride": 2}, r"in place of stride use pool=\(1, stride\); arguments: in_channels, "),
        ],
    )
    def test_wrong_arguments(self, backend, arguments, message):
        given = {name: getattr(backend.nn, str(value), value) for name, value in arguments.items()}
        with pytest.raises(SpecError, match=message):
            backend.maam.MAAM(4, **given)

    def test_more_wrong_calls(self, backend):
        build, layer, relu = backend.maam.build, backend.maam.MAAM, backend.nn.ReLU()
        assert "missing a required argument: 'in_channels'" in error_of(SpecError, layer)
        assert "did you mean 'maam_digits'" in error_of(PresetError, build, "maam_digit")
        assert "seed: expected an integer" in error_of(SpecError, build, "maam_digits", seed=-1)
        assert "got a built ReLU; pass the class, without paren" in error_of(SpecError, layer, 4, act_layer=relu)
        if backend.name == "mindspore":
            assert "unexpected keyword argument 'dtype'" in error_of(SpecError, layer, 4, dtype=backend.ms.float16)

    @pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((8,), {"rd_ration": 0.5}), ((8,), {"channels": 8})])
    def test_a_wrong_call_is_also_a_type_error(self, args, kwargs):
        """Python's functions raise it, and libraries catch it to find out which arguments a layer takes."""
        assert issubclass(ArgumentError, TypeError)
        assert error_of(ArgumentError, bind_arguments, spec.maf, args, kwargs, {}, {}).startswith("maf: ")


def test_repr(backend, small):
    text = repr(backend.maam.MAAM(4, 8, scales=(1, 2, 1)))
    assert text.startswith("MAAM(\n  in_channels=4, out_channels=8, scales=(1, 2, 1)\n  (agents): Parallel(")
    assert "    merge='softmax'\n    (0): Sequential(\n      (conv1): Conv2d(" in text
    assert "    (1): Resize(\n      (scale): AvgPool2d(kernel_size=2" in text
    assert " at 0x" not in text  # MindSpore's own initializers show an address
    assert backend.name == "torch" or "weight_init=Normal(0.2357), bias_init=None" in text
    assert repr(backend.maam.build(small)).startswith("Model(\n  (agents): Parallel(")
    assert re.search(r"\(rnn\): RowRNN\(\s*24, 128", repr(backend.maam.build(spec.preset("rnn", image_size=8))))


def test_a_composite_of_ones_own_runs(runtime, x):
    layer = type("Gate", (runtime.layers.Layer,), {}, composite=gate)(4, act_layer=runtime.nn.Tanh)
    arrays = runtime.read(layer)
    logits = np.einsum("nchw,c->nhw", x, arrays["conv.weight"][0, :, 0, 0])[:, None] + arrays["conv.bias"][0]
    np.testing.assert_allclose(runtime.call(layer, x), x * np.tanh(logits), rtol=1e-5, atol=1e-6)


def test_a_subclass_has_other_arguments_and_computes_more(runtime, x):
    class WithHead(runtime.maam.MAAM):
        def __init__(self, channels, classes):
            super().__init__(channels, num_agents=2)
            self.head = runtime.linear(channels, classes)

        def forward(self, x):
            return self.head(super().forward(x).mean((2, 3)))

        def construct(self, x):
            return self.head(super().construct(x).mean((2, 3)))

    plain, model = (runtime.scramble(layer) for layer in (runtime.maam.MAAM(4, num_agents=2), WithHead(4, 3)))
    assert bare(inspect.signature(WithHead)) == "(channels, classes)"
    assert repr(model).startswith("WithHead(\n  in_channels=4, num_agents=2\n")
    weight, bias = (runtime.numpy(array) for array in (model.head.weight, model.head.bias))
    expected = runtime.reference(plain)(x).mean((2, 3)) @ weight.T + bias
    np.testing.assert_allclose(runtime.call(runtime.train(model, False), x), expected, rtol=1e-5, atol=1e-5)


def test_copies_are_independent(runtime, x):
    layer = runtime.train(runtime.scramble(runtime.maam.MAAM(4, num_agents=2, scales=(1, 2))), False)
    expected = runtime.call(layer, x)
    other = copy.deepcopy(layer)  # in graph mode of a cell that has a graph
    assert (other.spec, repr(other)) == (layer.spec, repr(layer))
    np.testing.assert_array_equal(runtime.call(other, x), expected)
    runtime.call(runtime.train(other), x)
    name = "reduce.bn.running_mean"
    assert np.all(runtime.read(other)[name] != runtime.read(layer)[name])
    np.testing.assert_array_equal(runtime.call(layer, x), expected)


class Gate:
    """Stands for a layer class."""


class TestLookup:
    def test_names_classes_and_functions(self):
        layer = type("SqueezeExcite", (Gate,), {"composite": staticmethod(spec.se)})
        assert layers_in({"SqueezeExcite": layer, "Base": Gate, "Other": int, "spec": spec}, Gate) == {"se": layer}
        for given, found in (("gate", Gate), ("Gate", Gate), (Gate, Gate), (len, len)):
            assert find_layer(given, {"gate": Gate}, Gate) is found

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ("gait", "no layer 'gait'; did you mean 'gate'? Known layers: gate"),
            ("", "no layer ''; known layers: gate"),
            ("x" * 100, f"no layer '{'x' * 60}'; known"),
            (3, "got an object of type int"),
            (None, "got an object of type NoneType"),
            (Gate(), "got a built Gate; each block needs its own layer"),
        ],
    )
    def test_refusals(self, given, message):
        assert message in error_of(SpecError, find_layer, given, {"gate": Gate}, Gate)

    def test_a_layer_must_keep_the_shape(self):
        check_keeps_shape("MAFC", spec.mafc(8), 8)
        check_keeps_shape("MAAM", spec.maam(8), 8)
        message = error_of(SpecError, check_keeps_shape, "MAAM", spec.maam(8, pool=2), 8)
        assert "MAAM turns (8, 64, 64) into (8, 32, 32); expected a layer" in message


class Pair(NamedTuple):
    first: object
    second: object


FIRST = [
    (1, 1, 7),
    ((1, 2), 1, (7, 2)),
    ([None, 2], 2, [None, 7]),
    (("x", (None, [3, 4])), 3, ("x", (None, [7, 4]))),
    (Pair((), 5), 5, Pair((), 7)),
]


def test_the_first_tensor_in_an_output_is_found_and_replaced():
    for output, found, replaced in FIRST:
        assert first_of(output, int) == found
        changed = with_first(output, int, 7)
        assert changed == replaced
        assert type(changed) is type(replaced)
    assert [first_of(output, int) for output in (None, (), ("x", [None]))] == [None] * 3


class TestNames:
    """The frameworks' names of parameters, on which checkpoints depend: keys of state_dict, and MindSpore's names."""

    def test_of_a_layer_alone_and_inside_a_network(self, backend):
        expected = ["agents.alpha"]
        for path, index in (("agents.0", 1), ("agents.0", 2), ("reduce", "")):
            expected += [f"{path}.conv{index}.weight", *(f"{path}.bn{index}.{name}" for name in NORM[backend.name])]
        layers = [backend.maam.MAAM(4, num_agents=1) for _ in range(2)]
        network, built = backend.chain(*layers), backend.maam.build(spec.maam(4, num_agents=1), seed=1)
        assert list(backend.state(built)) == expected
        assert list(backend.state(network)) == [f"{index}.{name}" for index in "01" for name in expected]

    @pytest.mark.parametrize("name", [*VARIANTS, "rnn"])
    def test_are_those_of_the_spec_but_for_batch_norm_in_mindspore(self, backend, name):
        node = spec.maam(4, 8, **VARIANTS[name]) if name in VARIANTS else spec.preset("rnn", image_size=8)
        model, expected = backend.maam.build(node), [p.name for p in node.parameters()]
        assert sorted(backend.read(model)) == sorted(expected)
        if backend.name == "mindspore":
            parts = [name.rpartition(".") for name in expected]
            expected = ["".join((*path, MINDSPORE[name] if "bn" in path[0] else name)) for *path, name in parts]
        found = [name for name in backend.state(model) if not name.endswith("num_batches_tracked")]
        assert sorted(found) == sorted(expected)
