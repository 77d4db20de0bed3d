"""What importing and using the referee loads: no framework and no scipy; in a process of its own."""

import json
import subprocess
import sys

STRANGERS = {"torch", "mindspore", "scipy", "sklearn", "matplotlib", "typer", "rich", "torchvision", "PIL"}

PROGRAM = """
import json, sys
import maam.reference
import numpy
model = maam.reference.build("maam_digits", seed=0)
model(numpy.zeros((2, 1, 8, 8)), training=True)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_no_framework_and_no_scipy():
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    loaded = set(json.loads(result.stdout))
    assert {"maam", "numpy"} <= loaded
    assert not loaded & STRANGERS
