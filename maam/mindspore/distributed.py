"""Several processes that train together, by MindSpore's data parallelism: `msrun ... python -m maam train ...`."""

from __future__ import annotations

import os
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, communication, nn, ops

from maam.training.world import Alone, World

Array = np.ndarray[Any, Any]


class Processes:
    """The processes that msrun started; see `maam.training.world.World`."""

    def __init__(self) -> None:
        self.rank, self.size = communication.get_rank(), communication.get_group_size()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        mean_over_processes(np.zeros(1, np.float32))

    def gather(self, array: Array) -> Array:
        """The arrays (N, ...) of all processes, one after the other; N is padded to the longest for the way."""
        everything = ops.AllGather()
        lengths = everything(Tensor(np.array([len(array)], np.int32))).asnumpy()
        longest = int(lengths.max())
        padding = [(0, longest - len(array))] + [(0, 0)] * (array.ndim - 1)
        found = everything(Tensor(np.pad(array, padding))).asnumpy().reshape(self.size, longest, *array.shape[1:])
        return np.concatenate([part[:length] for part, length in zip(found, lengths, strict=True)])


def join_world(device: str) -> World:
    """The place of this process among those that msrun started; alone where it was not started so."""
    if int(os.environ.get("MS_WORKER_NUM", "1")) < 2:
        return Alone()
    if not communication.GlobalComm.INITED:
        communication.init()
    ms.set_auto_parallel_context(parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=True)
    return Processes()


def leave_world() -> None:
    """Part from the other processes."""
    if communication.GlobalComm.INITED:
        communication.release()


def make_reducer(weights: Any) -> nn.Cell | None:
    """What turns a process's gradients of `weights` into the mean of those of all; None in a process alone."""
    if not communication.GlobalComm.INITED or communication.get_group_size() == 1:
        return None
    return nn.DistributedGradReducer(weights, mean=True, degree=communication.get_group_size())


def mean_over_processes(values: Array) -> Array:
    """The mean of each value over all processes; the values themselves where there is one."""
    if not communication.GlobalComm.INITED or communication.get_group_size() == 1:
        return values
    total = ops.AllReduce()(Tensor(values.astype(np.float32))).asnumpy()
    return np.asarray(total / communication.get_group_size())
