"""Rounding errors of the frameworks that explain bounds of the parity check, and MindSpore's own tanh and Adam."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from maam import data, spec
from maam.backend.registry import make_double
from maam.parity.kinks import GradientReference, named_gradients
from maam.parity.optimizers import Outcome, take_step
from maam.parity.stages.steps import (
    OPTIMIZERS,
    STEPS,
    loss_cotangent,
    running_statistics,
    to_float32,
    zero_state,
)
from maam.parity.subject import Subject
from maam.training import one_cycle

Array = np.ndarray[Any, Any]
SHAPES = [(4, 8, 8, 8), (16, 1, 16, 16), (16, 1, 32, 32), (16, 64, 32, 32), (64, 16, 32, 32)]
TRIES = 6


def sums() -> None:
    """Print how exactly PyTorch, eager and compiled, and MindSpore sum maps in float32.

    The sums are the gradients of a batch norm's weight and bias. The errors are relative to the sum of magnitudes.
    """
    import torch

    torch.set_num_threads(1)
    for shape in SHAPES:
        tries = [sum_errors(shape, seed) for seed in range(TRIES)]
        means = (f"{name} {np.mean([errors[name] for errors in tries]):.1e}" for name in tries[0])
        print(f"{shape}:", ", ".join(means), flush=True)


def kinks(
    preset: Annotated[str, typer.Argument(help="name of a preset")],
    root: Annotated[Path, typer.Argument(help="folder of CIFAR-10")],
) -> None:
    """Print the errors of float32 gradients in ten steps of SGD, before and after kinks are settled.

    A kink is a point where ReLU or max pooling is not differentiable.
    """
    node = spec.preset(preset)
    arrays = spec.draw(node.parameters(), 0)
    dataset = data.cifar10(root, "test")
    images, labels = data.to_float(dataset.images), dataset.labels.astype(np.int32)
    subject = Subject(node, arrays, images, labels, [], double=make_double(node, arrays))
    for step, (before, after, crossed) in enumerate(gradient_errors(subject), 1):
        print(f"step {step}: {before:.1e} of the largest, {after:.1e} with {crossed} kinks settled", flush=True)


def mindspore_errors() -> None:
    """Print the errors of MindSpore's own tanh and Adam, which maam replaces."""
    import mindspore as ms

    error, place = tanh_error()
    print(f"MindSpore {ms.__version__}: the largest error of tanh is {error:.1e}, at {place:.2f}")
    for gradient in (1e-4, 1e-6, 1e-7, 1e-8, 1e-9):
        print(
            f"Adam's first update for a gradient of {gradient:.0e}: {adam_first_update(gradient):.2f} of the true one"
        )


def sum_errors(shape: tuple[int, int, int, int], seed: int) -> dict[str, float]:
    """Return the largest error of a batch norm's gradients by framework, as a share of the sum of magnitudes."""
    import torch

    generator = np.random.default_rng(seed)
    x = (generator.standard_normal(shape) + 1).astype(np.float32)
    weights = generator.standard_normal(shape).astype(np.float32)
    exact = _torch_gradients(x, weights, torch.float64)
    found = {
        "eager": _torch_gradients(x, weights, torch.float32),
        "compiled": _torch_gradients(x, weights, torch.float32, compiled=True),
        "mindspore": _mindspore_gradients(x, weights),
    }
    size = np.abs(weights).sum() / shape[1]
    return {name: float(np.abs(gradients - exact).max()) / size for name, gradients in found.items()}


def gradient_errors(subject: Subject) -> Iterator[tuple[float, float, int]]:
    """Yield, for each step, the error of float32 gradients before and after kinks are settled, and their number.

    The errors are relative to the largest value of each tensor.
    """
    optimizer = OPTIMIZERS["sgd"]
    assert subject.single is not None, "PyTorch is required"
    state = Outcome(dict(subject.fresh), zero_state(subject.spec, optimizer))
    for index in range(STEPS):
        x = subject.batch(index)[0]
        cotangent = loss_cotangent(subject, state.arrays, index)
        reference = GradientReference(subject, state.arrays, x, cotangent)
        single = named_gradients(subject.single, state.arrays, x, cotangent)
        settled = reference.settle(single)
        before, after = (
            max(np.abs(single[name] - found[name]).max() / size for name, size in reference.largest.items())
            for found in (reference.gradients, settled.gradients)
        )
        yield before, after, settled.crossed
        lr = one_cycle(index + 1, STEPS + 1, optimizer.lr)
        after = take_step(optimizer, subject.spec, state.arrays, reference.gradients, state.state, lr)
        state = to_float32(Outcome(after.arrays | running_statistics(subject, state.arrays, x), after.state))


def tanh_error() -> tuple[float, float]:
    """Return the largest absolute error of MindSpore's tanh in [-10, 10], and where it occurs."""
    import mindspore as ms

    x = np.linspace(-10, 10, 200_001, dtype=np.float32)
    error = np.abs(ms.ops.tanh(ms.Tensor(x)).asnumpy() - np.tanh(x.astype(np.float64)))
    return float(error.max()), float(x[error.argmax()])


def adam_first_update(gradient: float, lr: float = 1e-3, eps: float = 1e-8) -> float:
    """Return the first update of MindSpore's Adam relative to the true one, lr g / (|g| + eps)."""
    import mindspore as ms
    from mindspore.experimental import optim

    weight = ms.Parameter(ms.Tensor(np.zeros(1, np.float32)), name="weight")
    optim.Adam([weight], lr=lr, eps=eps)((ms.Tensor(np.full(1, gradient, np.float32)),))
    return float(-weight.asnumpy()[0] / (lr * gradient / (gradient + eps)))


def _torch_gradients(x: Array, weights: Array, dtype: Any, compiled: bool = False) -> Array:
    """Return the gradients of weight and bias of sum(batch_norm(x) * weights), (2, C)."""
    import torch

    layer = torch.nn.BatchNorm2d(x.shape[1]).to(dtype)
    run = torch.compile(layer, dynamic=False) if compiled else layer
    run(torch.tensor(x, dtype=dtype)).backward(torch.tensor(weights, dtype=dtype))
    return np.stack([parameter.grad.numpy() for parameter in layer.parameters() if parameter.grad is not None])


def _mindspore_gradients(x: Array, weights: Array) -> Array:
    """Return the same gradients from MindSpore in float32."""
    import mindspore as ms

    ms.set_context(mode=ms.PYNATIVE_MODE)
    layer = ms.nn.BatchNorm2d(x.shape[1]).set_train(True)
    function = ms.value_and_grad(lambda a: (layer(a) * ms.Tensor(weights)).sum(), None, layer.trainable_params())
    return np.stack([gradient.asnumpy() for gradient in function(ms.Tensor(x))[1]])
