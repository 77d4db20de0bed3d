"""Small image folders, written from the sample of real CIFAR-10 images."""

from pathlib import Path

import numpy as np

SAMPLE = Path(__file__).parent / "data" / "cifar10_sample.npz"
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def write_folder(root, *, classes=10, train=8, val=4, sides=(24, 90), suffix=".jpg"):
    """Write root/{train,val}/CLASS/NN.jpg, each with a random height and width, and return `root`."""
    from PIL import Image

    with np.load(SAMPLE) as content:
        images, labels = content["images"], content["labels"]
    rng = np.random.default_rng(0)
    for label in range(classes):
        for index, image in enumerate(images[labels == label][: train + val]):
            folder = root / ("train" if index < train else "val") / NAMES[label]
            folder.mkdir(parents=True, exist_ok=True)
            height, width = rng.integers(*sides, size=2).tolist()
            picture = Image.fromarray(image.transpose(1, 2, 0)).resize((width, height), Image.Resampling.BICUBIC)
            picture.save(folder / f"{index:02}{suffix}")
    return root
