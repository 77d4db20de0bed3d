"""Imports: the spec loads NumPy and pydantic, the reference and the conversion no framework."""

import json
import subprocess
import sys

import pytest

PYDANTIC = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
LIGHT = {"maam", "numpy", "cython_runtime", *PYDANTIC}


def loaded_by(statement):
    """Return the top-level packages that a new interpreter loads for `statement`."""
    code = f"import json, sys; {statement}; print(json.dumps(sorted({{n.partition('.')[0] for n in sys.modules}})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import maam.spec as s; s.preset('maam_digits').to_json()", LIGHT),
        (
            "import maam.reference as r, numpy as n; r.build('maam_digits')(n.zeros((2, 1, 8, 8)), training=True)",
            {*LIGHT, "ml_dtypes", "safetensors"},
        ),
        ("import maam.backend.convert", {*LIGHT, "ml_dtypes", "safetensors"}),
    ],
)
def test_packages_that_are_loaded(statement, allowed):
    loaded = loaded_by(statement) - loaded_by("pass") - set(sys.stdlib_module_names)
    assert {name for name in loaded if not name.startswith("_")} <= allowed
