"""Layers by name, and what a layer refuses, for all frameworks alike."""

import pytest

from maam import spec
from maam.backend.layers import arguments_of, check_keeps_shape, find_layer, layers_in
from maam.errors import ArgumentError, SpecError


class Base:
    pass


class Gate(Base):
    pass


class Other:
    pass


LAYERS = {"gate": Gate}


def test_subclasses_by_name():
    assert layers_in({"Gate": Gate, "Base": Base, "Other": Other, "spec": spec}, Base) == {"gate": Gate}


@pytest.mark.parametrize("given", ["gate", "Gate", Gate])
def test_by_name_or_class(given):
    assert find_layer(given, LAYERS, Gate) is Gate


def test_any_function_of_the_channels_will_do():
    assert find_layer(len, LAYERS, Gate) is len


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("gait", "no layer 'gait'; did you mean 'gate'? There are gate"),
        ("", "no layer ''; did you mean 'gate'?"),
        ("x" * 100, f"no layer '{'x' * 60}'"),
        (3, "got an object of type int"),
        (None, "got an object of type NoneType"),
    ],
)
def test_what_is_no_layer(given, message):
    with pytest.raises(SpecError) as caught:
        find_layer(given, LAYERS, Gate)
    assert message in str(caught.value)


def test_a_layer_must_keep_the_shape():
    check_keeps_shape("MAFC", spec.mafc(8), 8)
    check_keeps_shape("MAAM", spec.maam(8), 8)
    with pytest.raises(SpecError, match=r"MAAM turns \(8, 64, 64\) into \(8, 32, 32\); expected a layer that keeps"):
        check_keeps_shape("MAAM", spec.maam(8, pool=2), 8)


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((8,), {"rd_ration": 0.5}), ((8,), {"channels": 8})])
def test_a_wrong_call_is_a_type_error_too(args, kwargs):
    """Functions of Python raise it, and libraries catch it to find out what a layer takes."""
    with pytest.raises(ArgumentError) as caught:
        arguments_of(spec.maf, args, kwargs, {}, {})
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, SpecError)
    assert str(caught.value).startswith("maf: ")
