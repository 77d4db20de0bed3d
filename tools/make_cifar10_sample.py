"""Write a small sample of CIFAR-10's test images: the first ones of each class, in test order."""

from __future__ import annotations

import argparse

import numpy as np

from maam.data import cifar10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", help="folder that contains the official CIFAR-10 folder")
    parser.add_argument("out", help="the .npz file to write: images uint8 (N, 3, 32, 32), labels int32 (N,)")
    parser.add_argument("--per-class", type=int, default=32, help="images of each class (default: 32)")
    arguments = parser.parse_args()
    test = cifar10(arguments.root, "test")
    firsts = [np.flatnonzero(test.labels == label)[: arguments.per_class] for label in range(10)]
    sample = test.subset(np.sort(np.concatenate(firsts)))
    np.savez_compressed(arguments.out, images=sample.images, labels=sample.labels)


if __name__ == "__main__":
    main()
