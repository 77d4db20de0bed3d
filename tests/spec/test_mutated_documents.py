"""Mutated documents either parse to what they say, or earn one short `SpecError`."""

import json

import pytest

from maam.errors import SpecError
from maam.spec import parse_json
from tests.spec import mutations


def outcome(text):
    """The spec of `text`, or the message of its refusal."""
    try:
        return parse_json(text)
    except SpecError as error:
        return str(error)


def says(written, given):
    """Whether `written` holds all of `given`: no field dropped, no value turned into another."""
    if isinstance(given, dict):
        return all(name in written and says(written[name], value) for name, value in given.items())
    if isinstance(given, list):
        return len(written) == len(given) and all(map(says, written, given))
    if isinstance(written, float):  # JSON does not tell 1 from 1.0; an integer of many digits is rounded
        return written == float(given) and not isinstance(given, bool)
    return written == given and isinstance(written, bool) == isinstance(given, bool)


def test_the_documents_are_valid_before_mutation():
    for text in mutations.bases():
        assert parse_json(text).to_json() == text


@pytest.mark.parametrize("seed", range(3))
def test_mutants_parse_or_are_refused_in_one_line(seed):
    refused = 0
    for name, text in mutations.mutants(220, seed):
        result = outcome(text)
        if isinstance(result, str):
            refused += 1
            assert "\n" not in result, (name, text)
            assert 10 < len(result) < 600, (name, text, result)
        else:
            assert parse_json(result.to_json()) == result, (name, text)
            assert says(result.to_document(), json.loads(text)), (name, text)
    assert refused >= 100


@pytest.mark.parametrize("mutate", mutations.MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_every_mutation_is_refused_at_times(mutate):
    rng = mutations.random.Random(0)
    assert any(isinstance(outcome(mutate(rng, text)), str) for text in mutations.bases() for _ in range(10))
