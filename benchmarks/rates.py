"""Rates of matrix products: what a processor or GPU can do, to compare the speed of networks with.

A rate is that of the fastest installed implementation, because no library is the fastest on every processor.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch

from maam._system import Clock, interleave
from maam.errors import MaamError, require

Call = Callable[[], object]
SIZES = {"cpu": 1024, "cuda": 8192}
"""The height and width of the matrices on each device."""
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "int8")
_SMALL = 256
_SLOW = 0.02
"""Seconds of a product of two matrices of `_SMALL` rows above which larger ones are not measured."""


class Rate(NamedTuple):
    """The rate of the products of two square matrices.

    Attributes:
        precision: "fp32", "tf32", "bf16", "fp16" or "int8".
        implementation: the library of the fastest product.
        operations: additions and multiplications per second.
    """

    precision: str
    implementation: str
    operations: float


def measure_rates(
    device: str = "cpu", *, precisions: Collection[str] = PRECISIONS, rounds: int = 5, size: int | None = None
) -> dict[str, Rate]:
    """Return the rate of each precision that the device supports.

    On a CPU the unit is CPU time of all threads, on a GPU elapsed time.

    Args:
        device: "cpu" or "cuda".
        precisions: those to measure.
        rounds: number of rounds; each round runs every implementation.
        size: height and width of the matrices; None for that of `SIZES`.
    """
    size = SIZES[device] if size is None else size
    clock = clock_of(device)
    small = matrix_products(device, min(size, _SMALL), precisions=precisions)
    slow = {key for key, call in small.items() if _seconds(call, clock) > _SLOW}  # emulated, as bf16 on old processors
    large = matrix_products(device, size, precisions=precisions, skip=slow)
    found: dict[str, Rate] = {}
    for side, products in ((min(size, _SMALL), {key: small[key] for key in slow}), (size, large)):
        named = {f"{precision}/{library}": call for (precision, library), call in products.items()}
        times = interleave(named, rounds=rounds, clock=clock)
        for (precision, library), seconds in zip(products, times.values(), strict=True):
            rate = Rate(precision, library, 2 * side**3 / min(seconds))
            if precision not in found or rate.operations > found[precision].operations:
                found[precision] = rate
    return {precision: found[precision] for precision in PRECISIONS if precision in found}


def clock_of(device: str) -> Clock:
    """Return the clock for a device: CPU time on a CPU, whose cores other processes use too, else elapsed time."""
    return time.process_time if device == "cpu" else time.perf_counter


def matrix_products(
    device: str, size: int, *, precisions: Collection[str] = PRECISIONS, skip: Collection[tuple[str, str]] = ()
) -> dict[tuple[str, str], Call]:
    """Return functions that multiply two square matrices, by precision and library.

    A function waits for its result. Precisions without a kernel on the device are left out.

    Args:
        device: "cpu" or "cuda".
        size: height and width of the matrices.
        precisions: those to return.
        skip: precisions and libraries to leave out.
    """
    dtypes: dict[str, Any] = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
    if device != "cpu":
        dtypes |= {"tf32": torch.float32, "fp16": torch.float16}
    found: dict[tuple[str, str], Call] = {
        (precision, "PyTorch"): functools.partial(_multiply, _matrix(size, dtype, device), precision)
        for precision, dtype in dtypes.items()
    }
    if device == "cpu":
        found |= {(precision, "ONNX Runtime"): call for precision, call in _onnxruntime_products(size).items()}
    return {key: call for key, call in found.items() if key[0] in precisions and key not in skip and _runs(call)}


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Allow or forbid TF32 in matrix products and convolutions; cuDNN allows it in convolutions by default."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def synchronize(device: str) -> None:
    """Wait until a GPU has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def _matrix(size: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    matrix = torch.rand(size, size, generator=torch.Generator().manual_seed(0))
    return (matrix * 127 if dtype == torch.int8 else matrix).to(dtype).to(device)


def _multiply(matrix: torch.Tensor, precision: str) -> None:
    with torch.inference_mode(), tf32(precision == "tf32"):
        if precision == "int8":
            torch._int_mm(matrix, matrix)
        else:
            matrix @ matrix
    synchronize(matrix.device.type)


def _onnxruntime_products(size: int) -> dict[str, Call]:
    try:
        require("onnx", "deploy")
        require("onnxruntime", "deploy")
    except MaamError:
        return {}
    floats = np.random.default_rng(0).random((size, size), np.float32)
    given = {"fp32": (floats, floats), "int8": ((255 * floats).astype(np.uint8), (127 * floats).astype(np.int8))}
    return {
        precision: _onnxruntime_product("MatMul" if precision == "fp32" else "MatMulInteger", *matrices)
        for precision, matrices in given.items()
    }


def _onnxruntime_product(operator: str, left: Any, right: Any) -> Call:
    """Return a product whose second matrix is a constant, as the weights of a network are."""
    onnx, onnxruntime = import_module("onnx"), import_module("onnxruntime")
    kinds = onnx.helper.np_dtype_to_tensor_dtype
    result = onnx.TensorProto.FLOAT if operator == "MatMul" else onnx.TensorProto.INT32
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [onnx.helper.make_tensor_value_info("left", kinds(left.dtype), left.shape)],
        [onnx.helper.make_tensor_value_info("product", result, left.shape)],
        [onnx.numpy_helper.from_array(right, "right")],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"left": left})


def _runs(call: Call) -> bool:
    """Return whether a device has a kernel for a product."""
    try:
        call()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def _seconds(call: Call, clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start
