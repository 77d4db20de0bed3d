"""Print how exactly PyTorch, eager and compiled, and MindSpore sum maps in float32: why some bounds are wider.

What is summed are the gradients of a batch norm's weight and bias, sums of products over a batch of maps.

Usage: python tools/sums.py
"""

import mindspore as ms
import numpy as np
import torch

SHAPES = [(4, 8, 8, 8), (16, 1, 16, 16), (16, 1, 32, 32), (16, 64, 32, 32), (64, 16, 32, 32)]
TRIES = 6


def by_torch(x, weights, dtype, compiled=False):
    """The gradients of weight and bias of sum(batch_norm(x) * weights): (2, C)."""
    layer = torch.nn.BatchNorm2d(x.shape[1]).to(dtype)
    run = torch.compile(layer, dynamic=False) if compiled else layer
    run(torch.tensor(x, dtype=dtype)).backward(torch.tensor(weights, dtype=dtype))
    return np.stack([layer.weight.grad.numpy(), layer.bias.grad.numpy()])


def by_mindspore(x, weights):
    """The same by MindSpore, float32."""
    layer = ms.nn.BatchNorm2d(x.shape[1]).set_train(True)
    function = ms.value_and_grad(lambda a: (layer(a) * ms.Tensor(weights)).sum(), None, layer.trainable_params())
    return np.stack([gradient.asnumpy() for gradient in function(ms.Tensor(x))[1]])


def errors(shape, seed):
    """The worst error of each, as a share of the sum of magnitudes."""
    generator = np.random.default_rng(seed)
    x = (generator.standard_normal(shape) + 1).astype(np.float32)
    weights = generator.standard_normal(shape).astype(np.float32)
    exact = by_torch(x, weights, torch.float64)
    found = {
        "eager": by_torch(x, weights, torch.float32),
        "compiled": by_torch(x, weights, torch.float32, compiled=True),
        "mindspore": by_mindspore(x, weights),
    }
    size = np.abs(weights).sum() / shape[1]
    return {name: float(np.abs(gradients - exact).max()) / size for name, gradients in found.items()}


def main():
    torch.set_num_threads(1)
    for shape in SHAPES:
        tries = [errors(shape, seed) for seed in range(TRIES)]
        print(f"{shape}:", ", ".join(f"{name} {np.mean([found[name] for found in tries]):.1e}" for name in tries[0]))


if __name__ == "__main__":
    main()
