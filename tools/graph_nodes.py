"""Count the nodes of a model's graph before and after fusion, in torch.export, ONNX and MindSpore.

python tools/graph_nodes.py [PRESET ...]  prints a Markdown table. Nodes are operations in inference: parameters, inputs
and outputs are counted apart for torch.export, where they are nodes too.
"""

import argparse
import os
import platform
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

GRAPHS = tempfile.TemporaryDirectory()
os.environ |= {"MS_DEV_SAVE_GRAPHS": "2", "MS_DEV_SAVE_GRAPHS_PATH": GRAPHS.name}  # read when MindSpore is imported

import mindspore as ms  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

import maam.mindspore  # noqa: E402
import maam.torch  # noqa: E402
from maam import fuse, preset, spec  # noqa: E402
from maam.torch.arrays import write_arrays  # noqa: E402

BOOKKEEPING = {"Load", "MakeTuple", "TupleGetItem", "UpdateState", "Depend", "Return"}


def torch_program(node, arrays):
    model = maam.torch.build(node).eval()
    write_arrays(model, arrays)
    x = torch.rand(2, *node.input_shape)
    return model, torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))


def count_torch(node, arrays):
    _, program = torch_program(node, arrays)
    nodes = list(program.graph.nodes)
    return sum(one.op == "call_function" for one in nodes), len(nodes)


def count_onnx(node, arrays):
    """As exported, and after the exporter's own optimizer, which folds batch norm too."""
    _, program = torch_program(node, arrays)
    for optimize in (False, True):
        yield len(torch.onnx.export(program, optimize=optimize, verbose=False).model_proto.graph.node)


def count_mindspore(node, arrays):
    """The operations of the graph that MindSpore has built, before it selects kernels; and all of its nodes."""
    cell = maam.mindspore.build(node)
    maam.mindspore.arrays.write_arrays(cell, arrays)
    ms.set_context(mode=ms.GRAPH_MODE)
    cell(ms.Tensor(np.zeros((1, *node.input_shape), np.float32)))
    built = max(Path(GRAPHS.name).rglob("graph_build_*.ir"), key=lambda path: path.stat().st_mtime)
    names = re.findall(r"^\s+%\d+\(.*?\) = ([\w:]+)", built.read_text(), re.MULTILINE)
    return sum(name not in BOOKKEEPING for name in names), len(names)


def counts(node, arrays):
    operations, whole = count_torch(node, arrays)
    plain, optimized = count_onnx(node, arrays)
    computing, built = count_mindspore(node, arrays)
    return {
        "torch.export, operations": operations,
        "torch.export, with parameters": whole,
        "ONNX, as exported": plain,
        "ONNX, optimized by the exporter": optimized,
        "MindSpore, operations": computing,
        "MindSpore, with loads of parameters": built,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["maam_cifar10", "maam_cifar10_2m3", "mafc_v2"])
    print("| preset | graph | before | after | gone |\n| --- | --- | --- | --- | --- |")
    for name in parser.parse_args().presets:
        node = preset(name)
        arrays = spec.draw(node.parameters(), 0)
        before, after = counts(node, arrays), counts(*fuse(node, arrays))
        for graph, count in before.items():
            print(f"| {name} | {graph} | {count} | {after[graph]} | {1 - after[graph] / count:.0%} |", flush=True)
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "onnx", "onnxscript", "mindspore"))
    print(f"\nPython {platform.python_version()}, {versions}")


if __name__ == "__main__":
    main()
