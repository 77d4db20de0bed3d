"""Print how far float32 gradients are from float64's in ten steps of SGD, before and after kinks are settled.

Usage: python tools/kinks.py PRESET CIFAR10_FOLDER
"""

import sys
from functools import partial

import numpy as np

from maam import data, spec
from maam.backend.registry import make_double
from maam.parity.kinks import Reference, named_gradients
from maam.parity.optimizers import take_step
from maam.parity.stages.steps import OPTIMIZERS, STEPS, _loss_cotangent, _rounded, _statistics, _zeros
from maam.parity.subject import Subject
from maam.training import one_cycle


def read_subject(preset, folder):
    node = spec.preset(preset)
    arrays = spec.draw(node.parameters(), 0)
    images = data.cifar10(folder, "test")
    floats, labels = data.to_float(images.images), images.labels.astype(np.int32)
    return Subject(node, arrays, floats, labels, [], double=make_double(node, arrays))


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    subject, optimizer = read_subject(*sys.argv[1:]), OPTIMIZERS["sgd"]
    arrays, state = dict(subject.fresh), _zeros(subject, optimizer)
    for index in range(STEPS):
        x, cotangent = subject.batch(index)[0], partial(_loss_cotangent, subject, arrays)
        reference = Reference(subject, arrays, x, cotangent(index))
        single = named_gradients(subject.single, arrays, x, cotangent(index))
        settled = reference.settle(single)
        before, after = (
            max(np.abs(single[name] - found[name]).max() / size for name, size in reference.largest.items())
            for found in (reference.gradients, settled.gradients)
        )
        print(f"step {index + 1}: {before:.1e} of the largest, {after:.1e} with {settled.crossed} kinks settled")
        lr = one_cycle(index + 1, STEPS + 1, optimizer.lr)
        outcome = take_step(optimizer, subject.spec, arrays, reference.gradients, state, lr)
        moved = outcome.arrays | _statistics(subject, arrays, x)
        arrays = {name: array.astype(np.float32) for name, array in moved.items()}
        state = _rounded(outcome.state)


if __name__ == "__main__":
    main()
