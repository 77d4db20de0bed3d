"""MindSpore as a backend: the methods of the contract, each in the module of its subject."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mindspore import nn

from maam.backend.protocol import Predict, ProcessGroup
from maam.mindspore import devices, runner, weights
from maam.mindspore.adapter import ModelAdapter
from maam.spec import Node

if TYPE_CHECKING:
    from maam.data import ImageBatches

Array = np.ndarray[Any, Any]


class MindSporeBackend:
    """The MindSpore backend; see `maam.backend.protocol`."""

    name = "mindspore"

    def build(self, spec: Node | str, seed: int | None = None) -> nn.Cell:
        """Return a cell of a spec or preset."""
        return weights.build(spec, seed=seed)

    def load(self, path: str | Path) -> nn.Cell:
        """Return the cell that a weights file describes."""
        return weights.load(path)

    def save_weights(self, model: nn.Cell, path: str | Path) -> None:
        """Write a cell's spec and arrays to a weights file."""
        weights.save_weights(model, path)

    def make_runner(self, model: nn.Cell, mode: str | None = None) -> runner.Runner:
        """Return a runner in graph or PyNative mode."""
        return runner.Runner(model, graph=mode != runner.PYNATIVE)

    def list_devices(self) -> dict[str, str]:
        """Return the available devices, the best one first, each with its description."""
        return devices.list_devices()

    def select_device(self, name: str | None = None) -> str:
        """Select the device of that name, or the best one if it is None (Ascend before the CPU), and return it."""
        return devices.select_device(name)

    def select_precision(self, device: str, name: str = "auto") -> str:
        """Return the precision of that name, or the fastest suitable one for "auto"."""
        return devices.select_precision(device, name)

    def make_training_runner(self, spec: Node, *, seed: int | None, device: str) -> runner.Runner:
        """Return a runner of a new model on `device`, in graph mode."""
        return devices.make_runner(spec, seed=seed, device=device)

    def join_processes(self, device: str) -> ProcessGroup:
        """Join the processes that msrun started."""
        return runner.join_processes(device)

    def leave_processes(self) -> None:
        """Leave the process group."""
        runner.leave_processes()

    def image_batches(self) -> type[ImageBatches]:
        """Return the class that decodes image folders with a GeneratorDataset."""
        from maam.mindspore.data import ImageFolderBatches

        return ImageFolderBatches

    def adapt(self, model: nn.Cell) -> ModelAdapter:
        """Return an adapter of a cell that maam did not build."""
        return ModelAdapter(model)

    def read_checkpoint(self, path: Path, spec: Node | None = None) -> tuple[dict[str, Array], Node | None]:
        """Return the arrays of a .ckpt file; its names follow from the roles in `spec`."""
        return weights.read_checkpoint(path, spec)

    def write_checkpoint(self, path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write a .ckpt file."""
        weights.write_checkpoint(path, spec, arrays)

    def write_exported(
        self, kind: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]
    ) -> None:
        """Write a model as MindIR or AIR."""
        from maam.mindspore import export

        export.WRITERS[kind](path, spec, arrays, shape, metadata)

    def open_exported(self, kind: str, path: Path) -> tuple[Predict, dict[str, str]]:
        """Return a MindIR file as a function of NumPy arrays, and its metadata."""
        from maam.mindspore import export

        return export.READERS[kind](path)


BACKEND = MindSporeBackend()
