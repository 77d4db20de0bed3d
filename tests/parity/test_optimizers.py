"""The NumPy optimizers against PyTorch's own, in float64, over some steps."""

import numpy as np
import pytest

from maam import spec
from maam.backend.protocol import OptimizerState
from maam.parity.optimizers import gradient_share, take_step
from maam.training import Optimizer

torch = pytest.importorskip("torch")

NODE = spec.Sequential(
    children={
        "conv": spec.Conv2d(in_channels=2, out_channels=3, kernel_size=1, bias=True),
        "bn": spec.BatchNorm2d(num_features=3),
    }
)
OPTIMIZERS = [
    Optimizer(lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    Optimizer(lr=0.1, momentum=0.5, weight_decay=0.1, decay="all"),
    Optimizer(name="adam", lr=0.01, weight_decay=0.1),
    Optimizer(name="adamw", lr=0.01, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-3),
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: f"{optimizer.name}-{optimizer.decay}")
def test_against_torch(optimizer):
    generator = np.random.default_rng(0)
    arrays = {p.name: generator.standard_normal(p.shape) for p in NODE.parameters() if p.trainable}
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}
    groups = [{"params": [tensors[n] for n in names], "weight_decay": d} for d, names in optimizer.groups(NODE)]
    native = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer.name]
    torch_optimizer = native(groups, lr=optimizer.lr, **optimizer.settings)
    state = OptimizerState(0, {m: {n: np.zeros_like(a) for n, a in arrays.items()} for m in optimizer.moments})
    for _ in range(5):
        gradients = {name: generator.standard_normal(array.shape) for name, array in arrays.items()}
        for name, tensor in tensors.items():
            tensor.grad = torch.tensor(gradients[name])
        torch_optimizer.step()
        arrays, state = take_step(optimizer, NODE, arrays, gradients, state, optimizer.lr)
    assert state.step == 5
    for name, tensor in tensors.items():
        np.testing.assert_allclose(arrays[name], tensor.detach().numpy(), rtol=1e-12, atol=1e-14)
        for moment in optimizer.moments:
            expected = torch_optimizer.state[tensor][moment].numpy()
            np.testing.assert_allclose(state.moments[moment][name], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda optimizer: f"{optimizer.name}-{optimizer.decay}")
def test_share_of_a_gradient_in_the_first_moment(optimizer):
    zeros = {p.name: np.zeros(p.shape) for p in NODE.parameters() if p.trainable}
    state = OptimizerState(0, dict.fromkeys(optimizer.moments, zeros))
    one = {name: array + 1 for name, array in zeros.items()}
    moment = take_step(optimizer, NODE, zeros, one, state, 0.1).state.moments[optimizer.moments[0]]
    assert moment["conv.weight"] == pytest.approx(gradient_share(optimizer))
