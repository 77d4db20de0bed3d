"""One process of data-parallel training on its share of a batch: rank, world size, folder for store and result."""

import sys
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from maam import spec
from maam.torch import build

OPTIONS = {"channels": 4, "hidden_channels": 4, "hidden_features": 8, "scales": (1, 2, 1)}


def model():
    """The same in every process; batch norm in eval, so that a share's statistics do not matter."""
    return build(spec.preset("maam_digits", **OPTIONS), seed=0).eval()


def batch():
    """Images and labels of the whole batch, for all processes together."""
    generator = torch.Generator().manual_seed(0)
    return torch.rand(8, 1, 8, 8, generator=generator), torch.arange(8) % 10


def gradients(module, x, labels):
    """Gradients by name, of the mean loss."""
    module.zero_grad()
    torch.nn.functional.cross_entropy(module(x), labels).backward()
    return {name: parameter.grad.clone() for name, parameter in module.named_parameters()}


def train(rank, world_size, folder):
    """The gradients that this process sees after the reduction."""
    store = distributed.FileStore(str(folder / "store"), world_size)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
    try:
        x, labels = (part.chunk(world_size)[rank] for part in batch())
        return gradients(DistributedDataParallel(model()), x, labels)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    this, total, place = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.save(train(this, total, place), place / f"{this}.pt")
