"""Composites: checked arguments, signatures and docstrings."""

import inspect
import re
from collections.abc import Sequence
from typing import Literal

import pytest

from maam import spec
from maam.errors import SpecError
from maam.spec.composites import OddSizes, Sizes, one_each, plain_signature
from maam.spec.fields import Flag, Probability, Size
from tests.errors import error_of

COMPOSITES = [name for name in spec.__all__ if hasattr(getattr(spec, name), "__wrapped__")]
assert {"maam", "mafc", "mobilenet"} <= set(COMPOSITES)


@spec.composite
def squeeze_excite(
    channels: Size,
    reduction: Size = 4,
    *,
    gate_layer: Literal["sigmoid", "hard_sigmoid"] = "sigmoid",
    bias: Flag = True,
) -> spec.Scale:
    """Return squeeze and excitation: x * gate(conv(relu(conv(pool(x)))))."""
    hidden = max(channels // reduction, 1)
    children = {
        "pool": spec.GlobalPool(),
        "reduce": spec.Conv2d(in_channels=channels, out_channels=hidden, kernel_size=1, bias=bias),
        "act": spec.Activation(function="relu"),
        "expand": spec.Conv2d(in_channels=hidden, out_channels=channels, kernel_size=1, bias=bias),
        "gate": spec.Activation(function=gate_layer),
    }
    return spec.Scale(children=children)


@spec.composite
def tower(widths: Sizes = (1,), kernels: OddSizes = 3, p: Probability = 0.0) -> spec.Sequential:
    kernels = one_each("kernels", kernels, len(widths), "convolutions")
    pairs = zip((1, *widths), widths, kernels, strict=False)
    convs = [spec.Conv2d(in_channels=a, out_channels=b, kernel_size=k) for a, b, k in pairs]
    return spec.Sequential(children={f"conv{index}": conv for index, conv in enumerate(convs)})


def test_a_composite_is_an_ordinary_spec():
    node = squeeze_excite(8, gate_layer="hard_sigmoid")
    assert spec.parse_json(node.to_json()) == node
    assert node.output_shape((8, 5, 7)) == (8, 5, 7)
    assert node.at("reduce").out_channels == 2
    assert node.at("gate").function == "hard_sigmoid"
    assert node.num_parameters == 8 * 2 + 2 + 2 * 8 + 8
    assert node.macs((8, 5, 7)) == 32
    assert tuple(spec.input_rule(node)) == (4, 8, 1, None)
    assert [p.name for p in squeeze_excite(8, bias=False).parameters()] == ["reduce.weight", "expand.weight"]
    head = {"pool": spec.GlobalPool(), "flatten": spec.Flatten(), "fc": spec.Linear(in_features=8, out_features=2)}
    whole = spec.Sequential(children={"se": node, **head})
    assert whole.output_shape((8, 5, 7)) == (2,)
    assert spec.draw(whole.parameters(), 0)["se.reduce.weight"].shape == (2, 8, 1, 1)
    assert spec.parse_json(whole.to_json()) == whole


def test_signatures_docstrings_and_values_for_each():
    assert squeeze_excite.__name__ == "squeeze_excite"
    assert squeeze_excite.__doc__.startswith("Return squeeze and excitation")
    assert list(inspect.signature(squeeze_excite).parameters) == ["channels", "reduction", "gate_layer", "bias"]
    assert squeeze_excite(8, 2) == squeeze_excite(channels=8, reduction=2) == squeeze_excite(8, reduction=2)
    assert squeeze_excite(8, 2) != squeeze_excite(8)
    assert tower(5).at("conv0").kernel_size == 3
    assert [node.kernel_size for node in tower([2, 3], (1, 5)).nodes.values()] == [1, 5]
    assert [node.kernel_size for node in tower((2, 3), 7).nodes.values()] == [7, 7]

    found = plain_signature(spec.maam).parameters
    assert (found["in_channels"].annotation, found["out_channels"].annotation) == (int, int | None)
    assert found["kernel_sizes"].annotation == int | Sequence[int]
    assert found["fusion"].annotation == Literal["softmax", "mean", "dynamic"]
    for name in COMPOSITES:
        signature = plain_signature(getattr(spec, name))
        assert "Annotated" not in str(signature)
        assert "ForwardRef" not in str(signature)
        assert issubclass(signature.return_annotation, spec.Node)


LEAST = "input should be greater than or equal to 1, got 0"
INVALID = [
    (squeeze_excite, (), {}, "squeeze_excite: channels: required, but not given"),
    (squeeze_excite, (8, 2, "sigmoid"), {}, "squeeze_excite: expected at most 2 positional arguments, got 3"),
    (squeeze_excite, tuple(range(30)), {}, "squeeze_excite: expected at most 2 positional arguments, got 30"),
    (squeeze_excite, (8,), {"channels": 8}, "squeeze_excite: channels: given by position and by name; pass it once"),
    (squeeze_excite, (8,), {"ratio": 4}, "squeeze_excite: ratio: no such argument"),
    (squeeze_excite, (8,), {"self": 4}, "squeeze_excite: self: no such argument"),
    (squeeze_excite, (0,), {}, f"squeeze_excite: channels: {LEAST}"),
    (squeeze_excite, (8.0,), {}, "squeeze_excite: channels: input should be a valid integer, got 8.0"),
    (squeeze_excite, (8,), {"bias": 1}, "squeeze_excite: bias: input should be a valid boolean, got 1"),
    (squeeze_excite, (8,), {"gate_layer": "relu"}, "squeeze_excite: gate_layer: input should be 'sigmoid' or 'hard_"),
    (squeeze_excite, (0,), {"bias": None}, f"squeeze_excite: channels: {LEAST}; bias: input"),
    (tower, ((),), {}, "tower: widths: expected at least one value"),
    (tower, (), {"kernels": []}, "tower: kernels: expected at least one value"),
    (tower, (None,), {}, "tower: widths.0: input should be a valid integer, got None"),
    (tower, (), {"p": True}, "tower: p: input should be a valid number, got True"),
    (tower, (), {"p": 1}, "tower: p: input should be less than 1, got 1"),
    (tower, ((2, 3), (1, 3, 5)), {}, "kernels: expected one value, or one for each of 2 convolutions, got 3: (1, 3"),
]


@pytest.mark.parametrize(("call", "args", "kwargs", "message"), INVALID)
def test_invalid_arguments(call, args, kwargs, message):
    with pytest.raises(SpecError) as error:
        call(*args, **kwargs)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)
    assert error.value.__cause__ is None


def test_errors_within_the_body_become_spec_errors():
    @spec.composite
    def broken(channels: Size = 0) -> spec.Sequential:
        if channels == 1:
            raise ValueError("not one")
        shape = spec.Conv2d(in_channels=1, out_channels=1, kernel_size=3).output_shape((channels, 9, 9))
        return spec.Sequential(children={"x": spec.Conv2d(in_channels=shape[0], out_channels=0, kernel_size=1)})

    for channels, message in [(1, "not one"), (2, "expected 1 channels, got 2"), (0, f"channels: {LEAST}")]:
        assert error_of(SpecError, broken, channels) == f"broken: {message}"
    assert error_of(SpecError, broken) == f"broken: channels: {LEAST}"  # the default is checked too


@pytest.mark.parametrize("name", COMPOSITES)
def test_arguments_and_errors(name):
    function = getattr(spec, name)
    arguments, errors = inspect.getdoc(function).split("\nArgs:\n")[1].split("\nRaises:\n")
    names = re.findall(r"^    (\w+): ", arguments, re.MULTILINE)
    assert names == list(inspect.signature(function).parameters)
    assert errors.startswith("    SpecError: ")
    texts = dict(zip(names, re.split(r"^    \w+: ", arguments, flags=re.MULTILINE)[1:], strict=True))
    for argument in inspect.signature(function).parameters.values():
        if argument.default not in (None, argument.empty):
            assert "Default:" in texts[argument.name], argument.name
    assert "as in `" not in arguments
