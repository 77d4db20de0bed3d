"""Networks in which a max pooling follows a ReLU, and a batch to train them on."""

import numpy as np

from maam import spec

SPECS = {
    "maam": lambda: spec.preset("maam_digits", channels=8, hidden_channels=4, hidden_features=16, pool=(2, 2)),
    "padded": lambda: spec.Model(
        name="padded",
        input_shape=(1, 8, 8),
        children={
            "conv": spec.Conv2d(in_channels=1, out_channels=4, kernel_size=3, padding=1),
            "act": spec.Activation(function="relu"),
            "pool": spec.MaxPool2d(kernel_size=3, stride=2, padding=1),
            "flatten": spec.Flatten(),
            "fc": spec.Linear(in_features=64, out_features=10),
        },
    ),
}


def batch():
    """Return images with many equal pixels, so that many maxima tie, and labels."""
    generator = np.random.default_rng(4)
    x = generator.integers(0, 3, (32, 1, 8, 8)).astype(np.float32) / 2
    return x, generator.integers(0, 10, 32).astype(np.int32)
