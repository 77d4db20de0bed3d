"""One of two processes that train together: writes the gradients of one step, then trains twice.

Arguments: FRAMEWORK FOLDER.
"""

import sys
from pathlib import Path

import numpy as np

from maam import spec
from maam.backend.registry import load_training_backend
from maam.training import Optimizer, default_recipe, train

SGD = Optimizer(lr=0.01, momentum=0.9)
SIZE = 8
RUNS = {"torch": ("run", "averaged"), "mindspore": ("averaged",)}  # each one compiles in MindSpore


def batch():
    rng = np.random.default_rng(0)
    return rng.random((2 * SIZE, 1, 8, 8), np.float32), rng.integers(0, 10, 2 * SIZE).astype(np.int32)


def gradients(backend, images, labels):
    """Return loss, accuracy and gradients; after the first step, the momentum is the gradient."""
    runner = backend.make_training_runner(spec.preset("maam_digits", num_agents=1), seed=0, device="cpu")
    trainer = runner.trainer(SGD)
    found = trainer.fetch([trainer.update(trainer.prepare(images, labels), 0.01)])
    return {"found": found, **trainer.read_state().moments["momentum_buffer"]}


def main(framework, folder):
    backend = load_training_backend(framework)
    processes = backend.join_processes(backend.select_device("cpu"))
    images, labels = batch()
    own = gradients(backend, images[processes.rank :: processes.size], labels[processes.rank :: processes.size])
    gathered = processes.gather(np.arange(processes.rank + 1, dtype=np.float32))
    np.savez(folder / f"{processes.rank}.npz", gathered=gathered, **own)
    changes = {"epochs": 1, "batch_size": 64, "precision": "fp32", "overrides.num_agents": 1}
    for name in RUNS[framework]:
        recipe = default_recipe("maam_digits").replaced({**changes, "ema_decay": 0.9 if name == "averaged" else None})
        train("maam_digits", recipe, out=folder / name, framework=framework, device="cpu")
    backend.leave_processes()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
