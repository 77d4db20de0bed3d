"""Comparison of the MAF networks with the float64 outputs of their authors' code, stored in tests/published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from maam.parity import make_runners
from maam.reference import ReferenceModel
from maam.torch import build
from tests.test_published import FILES, OUTPUTS, drawn, preset_of, read, share

Array = np.ndarray[Any, Any]


def maf_outputs() -> None:
    """Print the largest difference of a logit from the published outputs, as a share of the largest logit."""
    print("| network | mode | NumPy, float64 | PyTorch, float64 | PyTorch, float32 | MindSpore, float32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for document in map(read, FILES):
        cifar = ", CIFAR strides" if document["cifar"] else ""
        name = f"{document['arch']}, width {document['width_multiplier']}{cifar}, {document['input_size']} pixels"
        for training, mode in OUTPUTS.items():
            cells = (f"{share(output, document, training):.1e}" for output in compute_outputs(document, training))
            print(f"| {name} | {mode.removesuffix('_logits')} | {' | '.join(cells)} |", flush=True)


def compute_outputs(document: dict[str, Any], training: bool) -> Iterator[Array]:
    """Yield the logits of NumPy and PyTorch in float64, and of PyTorch and MindSpore (graph mode) in float32."""
    arrays, x = drawn(document)
    node = preset_of(document)
    yield ReferenceModel(node, arrays)(x, training=training)
    model = build(node, dtype=torch.float64).train(training)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    with torch.no_grad():
        yield model(torch.from_numpy(x)).numpy()
    single = {key: array.astype(np.float32) for key, array in arrays.items()}
    for framework in ("torch", "mindspore"):
        runners, _ = make_runners(node, single, [framework], compiled=False)
        graph = next(runner for runner in runners if runner.name in ("torch", "mindspore graph"))
        yield graph.forward(x.astype(np.float32), training)
