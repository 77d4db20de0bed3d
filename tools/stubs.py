"""Write maam/torch/layers.pyi and maam/mindspore/layers.pyi, which show the layer classes to editors and type checkers.

The signatures and docstrings come from the composites in `maam.spec`. Run it after a change of a composite or of an
example in layers.py:

    python tools/stubs.py
"""

import inspect
import subprocess
import sys
import types
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from textwrap import indent
from typing import Any, Literal, Union, get_args, get_origin

PACKAGE = Path(__file__).parents[1] / "maam"
HEADERS = {
    "torch": "import torch\nfrom torch import nn\n\nfrom maam.torch.modules import Layer as Layer\n",
    "mindspore": "from mindspore import nn\n\nfrom maam.mindspore.cells import Layer as Layer\n",
}
NAMES = {type(None): "None", Sequence: "Sequence"}


def render(annotation: Any) -> str:
    """Return the source of an annotation."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " | ".join(render(one) for one in arguments)
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, arguments))}]"
    if origin is not None:
        return f"{NAMES.get(origin, origin.__name__)}[{', '.join(render(one) for one in arguments)}]"
    if annotation in NAMES:
        return NAMES[annotation]
    framework = annotation.__module__.split(".")[0]
    place = {"torch": "torch.", "mindspore": "nn."}.get(framework, "")
    return f"{'nn.' if annotation.__name__ == 'Module' else place}{annotation.__name__}"


def render_class(layer: type) -> str:
    """Return the source of a layer class: its docstring and its constructor."""
    parameters = ["self"]
    for parameter in inspect.signature(layer).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in parameters:
            parameters.append("*")
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        parameters.append(f"{parameter.name}: {render(parameter.annotation)}{default}")
    docstring = indent(f'"""{inspect.getdoc(layer)}\n"""', "    ", lambda line: bool(line.strip()))
    return f"class {layer.__name__}(Layer):\n{docstring}\n\n    def __init__({', '.join(parameters)},) -> None: ...\n"


def stub(framework: str) -> str:
    """Return the stub file of a framework's layers."""
    layers = import_module(f"maam.{framework}.layers")
    classes = [
        layer for layer in vars(layers).values() if isinstance(layer, type) and layer.__module__ == layers.__name__
    ]
    source = "\n".join(
        [
            '"""Signatures of the layer classes; written by tools/stubs.py."""\n',
            f"from collections.abc import Sequence\nfrom typing import Literal\n\n{HEADERS[framework]}",
            f"__all__ = {layers.__all__}\n",
            *map(render_class, classes),
        ]
    )
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", f"{PACKAGE}/{framework}/layers.pyi", "-"]
    return subprocess.run(command, input=source, capture_output=True, text=True, check=True, cwd=PACKAGE.parent).stdout


if __name__ == "__main__":
    for name in HEADERS:
        (PACKAGE / name / "layers.pyi").write_text(stub(name), encoding="utf-8")
