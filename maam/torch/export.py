"""Export of models by torch.export: ONNX, OpenVINO, pt2 and ExecuTorch."""

from __future__ import annotations

import contextlib
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from maam._messages import one_line
from maam._system import share_protobuf
from maam.backend.engines import read_companion, write_companion
from maam.backend.protocol import Predict
from maam.errors import DeploymentError, require
from maam.spec import Node
from maam.spec.inputs import example_shape
from maam.torch.arrays import write_arrays
from maam.torch.weights import build
from maam.weights.file import parse_weights, weights_bytes

Array = np.ndarray[Any, Any]
OPSET = 18
_WEIGHTS = "maam/weights.safetensors"
AXES = ("batch", "channels", "height", "width")
"""The names of the input's axes in ONNX files."""
EXAMPLE_BATCH = 2  # torch.export treats sizes 0 and 1 as constants


def write_pt2(path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write a program of torch.export, with the metadata as extra files, and the spec and weights beside it."""
    torch.export.save(_program(_model(spec, arrays), shape, _example(spec, shape)), path, extra_files=dict(metadata))
    with zipfile.ZipFile(path, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]  # PyTorch reads only archives with one folder
        archive.writestr(f"{folder}/{_WEIGHTS}", weights_bytes(spec, arrays, metadata))


def open_pt2(path: Path, trusted: bool = False) -> tuple[Predict, dict[str, str]]:
    """Open a .pt2 file; return its function and its metadata.

    The model is built from the spec and the weights in the file. Only with `trusted` does torch.export read the program
    in it, which can run any code: it unpickles objects and evaluates expressions.
    """
    if trusted:
        return _open_program(path)
    with zipfile.ZipFile(path) as archive:
        found = [entry for entry in archive.infolist() if entry.filename.endswith(f"/{_WEIGHTS}")]
        if not found:
            raise DeploymentError(
                f"{path}: expected a .pt2 file that this version of maam export wrote; other .pt2 files can run any "
                "code when they are opened; if you trust the source, pass trusted=True, or export the weights again"
            )
        if found[0].file_size > path.stat().st_size:
            raise ValueError("its weights are larger than the file")
        spec, arrays, metadata = parse_weights(archive.read(found[0]), str(path))
    model = _model(spec, arrays)
    return lambda x: _run(model, x), metadata


def _open_program(path: Path) -> tuple[Predict, dict[str, str]]:
    extra: dict[str, Any] = {"maam.name": "", "maam.spec": "", "maam.preprocessing": "", "maam.class_names": ""}
    with _quiet():
        program = torch.export.load(path, extra_files=extra).module()
    texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in extra.items()}
    return lambda x: _run(program, x), {name: text for name, text in texts.items() if text}


def write_onnx(path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write an ONNX file that holds the weights, with the input `input` and the output `output`."""
    program = onnx_program(_model(spec, arrays), shape, _example(spec, shape))
    program.model.metadata_props.update(metadata)
    program.save(path, external_data=False)


def onnx_program(model: nn.Module, shape: Any, example: Any = None) -> Any:
    """Return a model in eval mode as a program of torch.onnx with a free batch axis; arguments as in `_program`."""
    share_protobuf()
    exported = _program(model, shape, example)
    try:
        with _quiet():
            program = torch.onnx.export(
                exported, input_names=["input"], output_names=["output"], opset_version=OPSET, verbose=False
            )
    except torch.onnx.OnnxExporterError as error:  # PyTorch 2.8 lacks global max pooling
        reason = one_line(error.__cause__ or error, 200)
        raise DeploymentError(
            f"PyTorch {torch.__version__} cannot write this model as ONNX: {reason}; later versions write more models"
        ) from error
    _name_axes(program, exported)
    return program


def _name_axes(program: Any, exported: torch.export.ExportedProgram) -> None:
    """Replace the symbols of torch.export, such as s77, by the names of the input's axes in all shapes of a program."""
    ir = import_module("onnx_ir")
    (x,) = (node for node in exported.graph.nodes if node.name == exported.graph_signature.user_inputs[0])
    names = {
        str(size): name for size, name in zip(x.meta["val"].shape, AXES, strict=False) if not isinstance(size, int)
    }
    for node in program.model.graph:
        _rename(ir, node.outputs, names)
    _rename(ir, [*program.model.graph.inputs, *program.model.graph.outputs], names)


def _rename(ir: Any, values: Iterable[Any], names: Mapping[str, str]) -> None:
    for value in values:
        for axis, size in enumerate(value.shape or ()):
            if isinstance(size, ir.SymbolicDim) and size.value is not None:
                text = re.sub(r"\bs\d+\b", lambda found: names.get(found[0], found[0]), size.value)
                value.shape[axis] = ir.SymbolicDim(text)


def write_openvino(path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write OpenVINO's .xml file, and a .bin file beside it, in float32."""
    openvino = import_module("openvino")
    source = path.with_suffix(".onnx")
    write_onnx(source, spec, arrays, shape, {})
    model = openvino.Core().read_model(source)
    for name, text in metadata.items():
        model.set_rt_info(text, [name])
    openvino.save_model(model, path, compress_to_fp16=False)
    source.unlink()


def write_executorch(path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]) -> None:
    """Write ExecuTorch's .pte file for XNNPACK, in float32, and its metadata beside it."""
    exir = import_module("executorch.exir")
    xnnpack = import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    with _quiet():
        program = _program(_model(spec, arrays), shape, largest=64)
        edge = exir.to_edge_transform_and_lower(program, partitioner=[xnnpack.XnnpackPartitioner()])
        path.write_bytes(edge.to_executorch().buffer)
    write_companion(path, metadata)


def open_executorch(path: Path, trusted: bool = False) -> tuple[Predict, dict[str, str]]:
    """Open an ExecuTorch file; return its function and its metadata."""
    require("executorch", "executorch")
    runtime = import_module("executorch.runtime").Runtime.get()
    method = runtime.load_program(path).load_method("forward")
    return lambda x: _run(lambda tensor: method.execute([tensor])[0].clone(), x), read_companion(path)


def _model(spec: Node, arrays: Mapping[str, Array]) -> nn.Module:
    model = build(spec)
    write_arrays(model, arrays)
    return model.eval()


def _example(spec: Node, shape: Any) -> tuple[int, ...]:
    """Return the shape of an example, with the spec's own size where `shape` has None."""
    return tuple(own if size is None else size for size, own in zip(shape, example_shape(spec), strict=True))


def _program(
    model: nn.Module, shape: Any, example: Any = None, largest: int | None = None
) -> torch.export.ExportedProgram:
    """Return a model as a program with a free batch axis.

    Args:
        model: the model.
        shape: the shape of one input; None for free axes.
        example: the shape of an example; None takes `shape`.
        largest: the largest batch, for formats that plan memory ahead.
    """
    like = next(model.parameters(), torch.empty(0))
    tensor = torch.zeros(EXAMPLE_BATCH, *(example or shape), dtype=like.dtype, device=like.device)
    free: dict[int, Any] = {0: torch.export.Dim("batch", min=1, max=largest)}
    free |= {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(shape, 1) if size is None}
    try:
        with _quiet(), torch.no_grad():
            return torch.export.export(model, (tensor,), dynamic_shapes=(free,))
    except (RuntimeError, torch._dynamo.exc.UserError) as error:
        raise DeploymentError(f"torch.export: {one_line(error, 300)}") from None


def _run(function: Callable[[Any], Any], x: Array) -> Array:
    with torch.inference_mode():
        return np.asarray(function(torch.from_numpy(np.ascontiguousarray(x, np.float32))).float().numpy())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the warnings of the exporters, which users cannot act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


WRITERS = {"pt2": write_pt2, "onnx": write_onnx, "openvino": write_openvino, "executorch": write_executorch}
READERS = {"pt2": open_pt2, "executorch": open_executorch}
"""The functions that write and open files, by format; engines open ONNX and OpenVINO files."""
