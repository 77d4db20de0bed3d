"""Several processes that train together, by torch.distributed: `torchrun -m maam train ...`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from maam.training.world import Alone, World

Array = np.ndarray[Any, Any]


class Processes:
    """The processes that torchrun started; see `maam.training.world.World`."""

    def __init__(self) -> None:
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        distributed.barrier()

    def gather(self, array: Array) -> Array:
        """The arrays (N, ...) of all processes, one after the other."""
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, array)
        return np.concatenate(found)


def join_world(device: str) -> World:
    """The place of this process among those that torchrun started; alone where it was not started so."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Alone()
    if device == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    return Processes()


def leave_world() -> None:
    """Part from the other processes."""
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def share_gradients(function: Any) -> Any:
    """A model's forward; its gradients are from now on the mean of those of all processes, where there are several."""
    return DistributedDataParallel(function) if _together() else function


def mean_over_processes(values: Tensor) -> Tensor:
    """The mean of each value over all processes; the values themselves where there is one."""
    if not _together():
        return values
    values = values.clone()
    distributed.all_reduce(values)
    return values / distributed.get_world_size()


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
