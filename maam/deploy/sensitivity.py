"""The layers of an ONNX model that int8 arithmetic disturbs most: each is quantized alone, and the outputs compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
_WITH_WEIGHTS = {"Conv": 0, "Gemm": 0, "MatMul": 1}
"""Operators with weights, and the axis of the output channels of the weights."""
_WITHOUT_WEIGHTS = ("Add", "Mul", "Concat", "AveragePool", "GlobalAveragePool", "MaxPool", "Sigmoid", "Softmax")
"""Other operators that the quantizers make int8."""
_LARGEST_WEIGHT, _LEVELS = 127, 255
"""The largest absolute int8 weight, and the number of steps between uint8 activations."""


class Sensitivity(NamedTuple):
    """A node and the noise in the outputs of the model if the node alone is int8.

    Attributes:
        node: the name of the node.
        outputs: the names of the outputs of the node.
        layer: the canonical name of its layer, if it has weights; else the name of the node.
        noise: mean square of the error of the outputs, divided by the mean square of the outputs.
    """

    node: str
    outputs: tuple[str, ...]
    layer: str
    noise: float


def rank_nodes(path: Path, images: Array, *, averaged: bool = False) -> list[Sensitivity]:
    """Return the nodes of an ONNX model that a quantizer would make int8, the most sensitive first.

    For each node, its weights, its inputs and its output are rounded: weights for each output channel, symmetrically,
    activations for the whole tensor, between their smallest and largest value.

    Args:
        path: a float32 model, with one input and one output.
        images: calibration images, float32 (N, C, H, W).
        averaged: whether these values are found for each image and averaged, which cuts outliers off, as NNCF does. If
            not, they are those of all images, as in ONNX Runtime.
    """
    import onnx

    model = onnx.load(path)
    weights = {one.name for one in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in (*_WITH_WEIGHTS, *_WITHOUT_WEIGHTS)]
    tensors = {node.name: _tensors(model.graph, node, weights) for node in nodes}
    ranges = _ranges(model, {name for names in tensors.values() for name in names}, images, averaged)
    (expected,) = _run(model, images)
    power = float(np.square(expected, dtype=np.float64).mean()) or 1.0
    found = []
    for node in nodes:
        (outputs,) = _run(
            _rounded(model, node, [name for name in tensors[node.name] if name in ranges], ranges), images
        )
        noise = float(np.square(outputs - expected, dtype=np.float64).mean()) / power
        found.append(Sensitivity(node.name, tuple(node.output), _layer(node, weights), noise))
    return sorted(found, key=lambda one: -one.noise)


def _tensors(graph: Any, node: Any, weights: set[str]) -> list[str]:
    """Return the activations that the quantizers round for a node: its inputs, and its output after a ReLU."""
    output = node.output[0]
    users = [other for other in graph.node if output in other.input]
    if len(users) == 1 and users[0].op_type == "Relu":
        output = users[0].output[0]
    last = {value.name for value in graph.output}
    return [name for name in (*node.input, output) if name not in weights | last]


def _layer(node: Any, weights: set[str]) -> str:
    named = next((name for name in node.input if name in weights and name.endswith(".weight")), None)
    return str(node.name) if named is None else named.removesuffix(".weight")


def _run(model: Any, images: Array, names: list[str] | None = None) -> list[Array]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(names, {session.get_inputs()[0].name: images}))


def _ranges(model: Any, names: set[str], images: Array, averaged: bool) -> dict[str, tuple[float, float]]:
    """Return the range of values of tensors; it contains 0."""
    from onnx import ValueInfoProto

    own = {value.name for value in (*model.graph.input, *model.graph.output)}
    added = sorted(names - own)
    count = len(model.graph.output)
    model.graph.output.extend(ValueInfoProto(name=name) for name in added)
    values = _run(model, images, added)
    del model.graph.output[count:]
    given = dict.fromkeys(names & {value.name for value in model.graph.input}, images)
    tensors = {**dict(zip(added, values, strict=True)), **given}
    return {name: _range(x, averaged) for name, x in tensors.items() if x.size}


def _range(x: Array, averaged: bool) -> tuple[float, float]:
    rows = x.reshape(len(x) if averaged else 1, -1)
    return min(float(rows.min(1).mean()), 0.0), max(float(rows.max(1).mean()), 0.0)


def _rounded(model: Any, node: Any, names: list[str], ranges: dict[str, tuple[float, float]]) -> Any:
    """Return a copy of a model with the weights of one node and some activations rounded as int8 arithmetic does."""
    import onnx
    from onnx import numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if node.op_type in _WITH_WEIGHTS:
        for one in copy.graph.initializer:
            if one.name == node.input[1]:
                array = _round_weights(numpy_helper.to_array(one), _WITH_WEIGHTS[node.op_type])
                one.CopyFrom(numpy_helper.from_array(array, one.name))
    replaced = {}
    for index, name in enumerate(names):
        pair, constants = _round_activation(name, f"maam_{index}", ranges[name])
        replaced[name] = pair
        copy.graph.initializer.extend(constants)
    graph = list(copy.graph.node)
    del copy.graph.node[:]
    for name in replaced.keys() & {value.name for value in copy.graph.input}:
        copy.graph.node.extend(replaced[name])
    for one in graph:
        for index, name in enumerate(one.input):
            if name in replaced:
                one.input[index] = replaced[name][-1].output[0]
        copy.graph.node.append(one)
        for name in replaced.keys() & set(one.output):
            copy.graph.node.extend(replaced[name])
    return copy


def _round_weights(array: Array, axis: int) -> Array:
    others = tuple(index for index in range(array.ndim) if index != axis % array.ndim)
    largest = np.abs(array).max(others, keepdims=True)
    scale = np.where(largest > 0, largest, 1) / _LARGEST_WEIGHT
    return np.asarray(np.round(array / scale) * scale, np.float32)


def _round_activation(name: str, prefix: str, bounds: tuple[float, float]) -> tuple[list[Any], list[Any]]:
    """Return the nodes that round a tensor to uint8 and back, and their constants."""
    from onnx import helper, numpy_helper

    smallest, largest = bounds
    scale = max((largest - smallest) / _LEVELS, 1e-12)
    zero = np.clip(round(-smallest / scale), 0, _LEVELS)
    constants = [f"{prefix}_scale", f"{prefix}_zero"]
    nodes = [
        helper.make_node("QuantizeLinear", [name, *constants], [f"{prefix}_uint8"], name=f"{prefix}_quantize"),
        helper.make_node(
            "DequantizeLinear", [f"{prefix}_uint8", *constants], [f"{prefix}_back"], name=f"{prefix}_back"
        ),
    ]
    arrays: tuple[Array, ...] = (np.array(scale, np.float32), np.array(zero, np.uint8))
    return nodes, [numpy_helper.from_array(array, one) for array, one in zip(arrays, constants, strict=True)]
