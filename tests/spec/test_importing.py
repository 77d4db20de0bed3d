"""Imports: `maam.spec` loads NumPy and pydantic, and no framework."""

import json
import subprocess
import sys

import pytest

HEAVY = ["torch", "mindspore", "sklearn", "matplotlib", "typer", "rich", "scipy", "torchvision", "safetensors", "PIL"]

PROGRAM = """
import json, sys
{statement}
print(json.dumps(sorted({{name.partition(".")[0] for name in sys.modules}})))
"""


def loaded_by(statement):
    """Return the top-level packages that a new interpreter loads for `statement`."""
    command = [sys.executable, "-c", PROGRAM.format(statement=statement)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(result.stdout))


@pytest.mark.parametrize(
    "statement", ["import maam", "import maam.spec", "import maam.spec as s; s.preset('maam_digits').to_json()"]
)
def test_no_framework_is_loaded(statement):
    loaded = loaded_by(statement)
    assert "maam" in loaded
    assert not loaded & set(HEAVY)


def test_the_spec_needs_only_numpy_and_pydantic():
    loaded = loaded_by("import maam.spec") - loaded_by("pass") - set(sys.stdlib_module_names)
    of_pydantic = {"pydantic", "pydantic_core", "annotated_types", "typing_extensions", "typing_inspection"}
    assert {name for name in loaded if not name.startswith("_")} <= {"maam", "numpy", "cython_runtime", *of_pydantic}
