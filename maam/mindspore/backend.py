"""The MindSpore backend: most of its methods are functions of the other modules of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import nn

from maam.backend.protocol import Predict, TrainingBackend
from maam.mindspore import devices, runner, weights
from maam.mindspore.adapter import ModelAdapter
from maam.mindspore.arrays import unwrap
from maam.spec import Node
from maam.weights.exchange import check_model, spec_of

if TYPE_CHECKING:
    from maam.data import ImageBatches

Array = np.ndarray[Any, Any]


class MindSporeBackend:
    """The MindSpore backend; `maam.backend.protocol` documents its methods."""

    name = "mindspore"
    build = staticmethod(weights.build)
    load = staticmethod(weights.load)
    save_weights = staticmethod(weights.save_weights)
    read_checkpoint = staticmethod(weights.read_checkpoint)
    write_checkpoint = staticmethod(weights.write_checkpoint)
    list_devices = staticmethod(devices.list_devices)
    select_device = staticmethod(devices.select_device)
    select_precision = staticmethod(devices.select_precision)
    make_training_runner = staticmethod(devices.make_training_runner)
    join_processes = staticmethod(runner.join_processes)
    leave_processes = staticmethod(runner.leave_processes)

    def make_runner(self, model: nn.Cell, mode: str | None = None) -> runner.Runner:
        """Return a runner in graph or PyNative mode."""
        check_model(model, nn.Cell, "mindspore.nn.Cell", "make_runner")
        spec_of(unwrap(model))
        return runner.Runner(model, graph=mode != runner.PYNATIVE)

    def adapt(self, model: nn.Cell) -> ModelAdapter:
        """Return an adapter of a cell that maam did not build."""
        return ModelAdapter(model)

    def image_batches(self) -> type[ImageBatches]:
        """Return the class that decodes image folders with a GeneratorDataset."""
        from maam.mindspore.data import ImageFolderBatches

        return ImageFolderBatches

    def write_exported(
        self, kind: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]
    ) -> None:
        """Write a model in one of the formats of `maam.mindspore.export`."""
        from maam.mindspore import export

        export.WRITERS[kind](path, spec, arrays, shape, metadata)

    def open_exported(self, kind: str, path: Path, trusted: bool = False) -> tuple[Predict, dict[str, str]]:
        """Open an exported file; return its function of NumPy arrays and its metadata."""
        from maam.mindspore import export

        return export.READERS[kind](path, trusted)


BACKEND = MindSporeBackend()
_: TrainingBackend = BACKEND  # for type checkers
