"""PyTorch as a backend: the methods of the contract, each in the module of its subject."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from maam.backend.protocol import Kink, NearKinks, Predict, ProcessGroup
from maam.spec import Node
from maam.torch import devices, kinks, runner, weights
from maam.torch.adapter import ModelAdapter

if TYPE_CHECKING:
    from maam.data import ImageBatches

Array = np.ndarray[Any, Any]


class TorchBackend:
    """The PyTorch backend; see `maam.backend.protocol`."""

    name = "torch"

    def build(self, spec: Node | str, seed: int | None = None) -> nn.Module:
        """Return a module of a spec or preset."""
        return weights.build(spec, seed=seed)

    def load(self, path: str | Path) -> nn.Module:
        """Return the module that a weights file describes."""
        return weights.load(path)

    def save_weights(self, model: nn.Module, path: str | Path) -> None:
        """Write a module's spec and arrays to a weights file."""
        weights.save_weights(model, path)

    def make_runner(self, model: nn.Module, mode: str | None = None) -> runner.Runner:
        """Return a runner in eager mode, or compiled by torch.compile."""
        return runner.Runner(model, compiled=mode == runner.COMPILED)

    def list_devices(self) -> dict[str, str]:
        """Return the available devices, the best one first, each with its description."""
        return devices.list_devices()

    def select_device(self, name: str | None = None) -> str:
        """Return the device of that name, or the best one (a GPU before the CPU) if it is None."""
        return devices.select_device(name)

    def select_precision(self, device: str, name: str = "auto") -> str:
        """Return the precision of that name, or the fastest suitable one for "auto"."""
        return devices.select_precision(device, name)

    def make_training_runner(self, spec: Node, *, seed: int | None, device: str) -> runner.Runner:
        """Return a runner of a new model on `device`, in channels_last."""
        return devices.make_runner(spec, seed=seed, device=device)

    def join_processes(self, device: str) -> ProcessGroup:
        """Join the processes that torchrun started."""
        return runner.join_processes(device)

    def leave_processes(self) -> None:
        """Leave the process group."""
        runner.leave_processes()

    def image_batches(self) -> type[ImageBatches]:
        """Return the class that decodes image folders with a DataLoader."""
        from maam.torch.data import ImageFolderBatches

        return ImageFolderBatches

    def adapt(self, model: nn.Module) -> ModelAdapter:
        """Return an adapter of a module that maam did not build."""
        return ModelAdapter(model)

    def read_checkpoint(self, path: Path, spec: Node | None = None) -> tuple[dict[str, Array], Node | None]:
        """Return the arrays of a state_dict file, and its spec where it carries one."""
        return weights.read_checkpoint(path, spec)

    def write_checkpoint(self, path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write a state_dict file."""
        weights.write_checkpoint(path, spec, arrays)

    def write_exported(
        self, kind: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]
    ) -> None:
        """Write a model as ONNX, OpenVINO, torch.export or ExecuTorch."""
        from maam.torch import export

        export.WRITERS[kind](path, spec, arrays, shape, metadata)

    def open_exported(self, kind: str, path: Path) -> tuple[Predict, dict[str, str]]:
        """Return a torch.export or ExecuTorch file as a function of NumPy arrays, and its metadata."""
        from maam.torch import export

        return export.READERS[kind](path)

    def near_kinks(self, exact: nn.Module, rounded: nn.Module, x: Array) -> NearKinks:
        """Find values that rounding may have moved across a kink."""
        return kinks.near_kinks(exact, rounded, x)

    def across(self, model: nn.Module, kink: Kink) -> AbstractContextManager[None]:
        """Move one value across its kink for as long as the context lasts."""
        return kinks.across(model, kink)


BACKEND = TorchBackend()
