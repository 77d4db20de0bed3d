"""Step times of a preset and of the hand-written model, interleaved: `python step_times.py [preset]`."""

import statistics
import sys
import time

import torch


def one_step(model, x):
    """Seconds of a forward and a backward pass."""
    start = time.perf_counter()
    model.zero_grad()
    model(x).square().mean().backward()
    return time.perf_counter() - start


def measure(ours, plain, x, steps):
    """Median seconds of each; in turns and in both orders, so that a busy machine slows both alike."""
    times = {ours: [], plain: []}
    for index in range(steps + 2):
        for model in (ours, plain) if index % 2 else (plain, ours):
            times[model].append(one_step(model, x))
    return statistics.median(times[ours][2:]), statistics.median(times[plain][2:])


def main(preset="maam_cifar10_2m3", batch=32, steps=40):
    """Print both medians and their ratio."""
    from handwritten import PRESETS, classifier

    from maam.torch import build

    ours, plain = build(preset, seed=0), classifier(**PRESETS[preset])
    seconds = measure(ours, plain, torch.randn(batch, *ours.spec.input_shape), steps)
    print(f"{preset}: ours {seconds[0] * 1e3:.2f} ms, plain {seconds[1] * 1e3:.2f} ms", end=", ")
    print(f"ratio {seconds[0] / seconds[1]:.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
