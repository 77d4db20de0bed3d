"""Imports: `maam.spec` loads NumPy and pydantic, and the reference no framework."""

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "mindspore", "sklearn", "matplotlib", "typer", "rich", "scipy", "torchvision", "PIL"}


def loaded_by(statement):
    """Return the top-level packages that a new interpreter loads for `statement`."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import maam", {"safetensors"}),
        ("import maam.spec", {"safetensors"}),
        ("import maam.spec as s; s.preset('maam_digits').to_json()", {"safetensors"}),
        ("import maam.reference as r, numpy as n; r.build('maam_digits')(n.zeros((2, 1, 8, 8)), training=True)", set()),
    ],
)
def test_no_framework_is_loaded(statement, absent):
    loaded = loaded_by(statement)
    assert "maam" in loaded
    assert not loaded & (HEAVY | absent)


def test_the_spec_needs_only_numpy_and_pydantic():
    loaded = loaded_by("import maam.spec") - loaded_by("pass") - set(sys.stdlib_module_names)
    of_pydantic = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert {name for name in loaded if not name.startswith("_")} <= {"maam", "numpy", "cython_runtime", *of_pydantic}
