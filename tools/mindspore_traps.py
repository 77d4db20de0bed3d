"""Print how far MindSpore's own tanh and Adam are off: the figures of docs/architecture.md.

Usage: python tools/mindspore_traps.py
"""

import mindspore as ms
import numpy as np
from mindspore.experimental import optim


def tanh_error():
    """The worst absolute error of ops.tanh in [-10, 10], and where."""
    x = np.linspace(-10, 10, 200_001, dtype=np.float32)
    gap = np.abs(ms.ops.tanh(ms.Tensor(x)).asnumpy() - np.tanh(x.astype(np.float64)))
    return gap.max(), x[gap.argmax()]


def adam_first_update(gradient, lr=1e-3, eps=1e-8):
    """The first update of MindSpore's Adam as a share of Kingma and Ba's, lr g / (|g| + eps)."""
    weight = ms.Parameter(ms.Tensor(np.zeros(1, np.float32)), name="weight")
    optim.Adam([weight], lr=lr, eps=eps)((ms.Tensor(np.full(1, gradient, np.float32)),))
    return -weight.asnumpy()[0] / (lr * gradient / (gradient + eps))


def main():
    error, place = tanh_error()
    print(f"MindSpore {ms.__version__}: tanh is off by {error:.1e} at {place:.2f}")
    for gradient in (1e-4, 1e-6, 1e-7, 1e-8, 1e-9):
        share = adam_first_update(gradient)
        print(f"Adam's first update for a gradient of {gradient:.0e}: {share:.2f} of what it should be")


if __name__ == "__main__":
    main()
