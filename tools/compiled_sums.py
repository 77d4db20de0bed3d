"""Print how exactly eager and compiled PyTorch sum maps in float32: why compiled gradients have a wider bound.

Usage: python tools/compiled_sums.py
"""

import torch

SHAPES = [(4, 8, 8, 8), (4, 64, 16, 16), (4, 64, 32, 32), (4, 64, 64, 64)]


def total(x):
    """The sum that a batch norm's gradients are made of: (N, C, H, W) to (C,)."""
    return x.sum((0, 2, 3))


def error(function, x):
    """Mean error over the channels, as a share of the sum of magnitudes."""
    exact = x.double()
    return float((function(x) - total(exact)).abs().mean() / total(exact.abs()).mean())


def main():
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compiled = torch.compile(total, dynamic=False)
    for shape in SHAPES:
        x = torch.randn(shape)
        print(f"{shape}: eager {error(total, x):.1e}, compiled {error(compiled, x):.1e}")


if __name__ == "__main__":
    main()
