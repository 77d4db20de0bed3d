"""The effect of fusion for deployment: differences of the outputs, and nodes of the graph."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import maam
from maam import data, spec
from maam.deploy.fusing import agreements
from maam.errors import SpecError, require
from maam.fusion.rewrite import is_fusible
from maam.parity import make_runners
from maam.training.compare import markdown_table

Array = np.ndarray[Any, Any]
FRAMEWORKS = ["torch", "mindspore"]
_NODES_OF_NO_OPERATION = {"Load", "MakeTuple", "TupleGetItem", "UpdateState", "Depend", "Return"}
_GRAPHS = "MS_DEV_SAVE_GRAPHS_PATH"


def fused_presets(
    presets: Annotated[list[str] | None, typer.Argument(help="default: all presets with something to fuse")] = None,
    root: Annotated[Path, typer.Option(help="folder of CIFAR-10")] = Path("datasets"),
) -> None:
    """Print how far each preset is from its fused form on all test images of CIFAR-10.

    The networks take 32x32 images, have ten classes and are freshly initialized (seed 0). They run in PyTorch and in
    both modes of MindSpore. A preset takes up to 40 minutes.
    """
    images = data.to_float(data.cifar10(root, "test").images)
    names = [name for name in presets or spec.list_presets() if is_fusible(_cifar_network(name))]
    if unfit := sorted(set(presets or ()) - set(names)):
        raise SpecError(f"presets: expected presets with something to fuse, got {', '.join(unfit)}")
    for framework in FRAMEWORKS:
        require(framework, framework)
    head = ["preset", "images with another class", "torch", "mindspore graph", "mindspore pynative"]
    print("\n".join(markdown_table(head, ())))
    for name in names:
        print(f"| {' | '.join(compare_forms(name, images))} |", flush=True)


def graph_nodes(
    presets: Annotated[list[str] | None, typer.Argument(help="default: maam_cifar10 maam_cifar10_2m3 mafc_v2")] = None,
) -> None:
    """Print the number of graph nodes before and after fusion, in torch.export, ONNX and MindSpore.

    Nodes are operations in inference. Parameters, inputs and outputs are nodes of torch.export too; a separate row
    includes them.
    """
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"MS_DEV_SAVE_GRAPHS": "2", _GRAPHS: folder}  # MindSpore reads them on import
        print("\n".join(markdown_table(["preset", "graph", "before", "after", "removed"], ())))
        for name in presets or ("maam_cifar10", "maam_cifar10_2m3", "mafc_v2"):
            node = spec.preset(name)
            arrays = spec.draw(node.parameters(), 0)
            fused, fused_arrays = maam.fuse(node, arrays)
            assert isinstance(fused, spec.Model)
            before, after = count_nodes(node, arrays), count_nodes(fused, fused_arrays)
            for graph, count in before.items():
                print(f"| {name} | {graph} | {count} | {after[graph]} | {1 - after[graph] / count:.0%} |", flush=True)
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "onnx", "onnxscript", "mindspore"))
    print(f"\nPython {platform.python_version()}, {versions}")


def compare_forms(name: str, images: Array) -> list[str]:
    """Return the cells of a preset: the images with another class, and the relative difference for each runner."""
    node = _cifar_network(name)
    arrays = spec.draw(node.parameters(), 0)
    forms = (node, arrays), maam.fuse(node, arrays)
    plain, fused = (make_runners(node, arrays, FRAMEWORKS, compiled=False)[0] for node, arrays in forms)
    found = list(agreements(list(zip(plain, fused, strict=True)), images))
    different = ", ".join(str(one.different) for one in found)
    return [f"`{name}`", different, *(f"{one.relative:.1e}" for one in found)]


def _cifar_network(name: str) -> spec.Node:
    options: dict[str, Any] = {"num_classes": 10, "in_channels": 3, "cifar": True, "image_size": 32}
    known = spec.preset_options(name)
    if "cifar" in known:
        del options["image_size"]
    return spec.preset(name, **{key: value for key, value in options.items() if key in known})


def count_nodes(node: spec.Model, arrays: Mapping[str, Array]) -> dict[str, int]:
    """Return the number of nodes by graph; the variables for MindSpore in `graph_nodes` must be set."""
    computing, with_loads = _count_mindspore(node, arrays)  # first: MindSpore cannot be imported after onnx
    operations, with_parameters = _count_torch(node, arrays)
    plain, optimized = _count_onnx(node, arrays)
    return {
        "torch.export, operations": operations,
        "torch.export, with parameters": with_parameters,
        "ONNX, as exported": plain,
        "ONNX, optimized by the exporter": optimized,
        "MindSpore, operations": computing,
        "MindSpore, with loads of parameters": with_loads,
    }


def _export_torch(node: spec.Model, arrays: Mapping[str, Array]) -> Any:
    import torch

    from maam.torch import build
    from maam.torch.arrays import write_arrays

    model = build(node).eval()
    write_arrays(model, arrays)
    x = torch.rand(2, *node.input_shape)
    return torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def _count_torch(node: spec.Model, arrays: Mapping[str, Array]) -> tuple[int, int]:
    nodes = list(_export_torch(node, arrays).graph.nodes)
    return sum(one.op == "call_function" for one in nodes), len(nodes)


def _count_onnx(node: spec.Model, arrays: Mapping[str, Array]) -> Iterator[int]:
    """Yield the count as exported, and after the exporter's own optimizer, which folds batch norm too."""
    import torch

    for optimize in (False, True):
        program = torch.onnx.export(_export_torch(node, arrays), optimize=optimize, verbose=False)
        assert program is not None
        yield len(program.model_proto.graph.node)


def _count_mindspore(node: spec.Model, arrays: Mapping[str, Array]) -> tuple[int, int]:
    """Return the operations and all nodes of the graph that MindSpore builds, before it selects kernels."""
    import mindspore as ms

    from maam.mindspore import build
    from maam.mindspore.arrays import write_arrays

    cell = build(node)
    write_arrays(cell, arrays)
    ms.set_context(mode=ms.GRAPH_MODE)
    cell(ms.Tensor(np.zeros((1, *node.input_shape), np.float32)))
    files = Path(os.environ[_GRAPHS]).rglob("graph_build_*.ir")
    graph = max(files, key=lambda path: path.stat().st_mtime).read_text()
    names = re.findall(r"^\s+%\d+\(.*?\) = ([\w:]+)", graph, re.MULTILINE)
    return sum(name not in _NODES_OF_NO_OPERATION for name in names), len(names)
