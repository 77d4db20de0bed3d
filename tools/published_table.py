"""Print how far the MAF networks are from the published code's float64 outputs, as a Markdown table.

Usage, from the repository's root: python -m tools.published_table
Each figure is the largest difference of a logit, as a share of the largest logit.
"""

import numpy as np
import torch

from maam.parity import make_runners
from maam.reference import ReferenceModel
from maam.torch import build
from tests.test_published import FILES, OUTPUTS, drawn, preset_of, read, share


def in_float64(document, training):
    arrays, x = drawn(document)
    model = build(preset_of(document), dtype=torch.float64).train(training)
    model.load_state_dict({name: torch.from_numpy(array) for name, array in arrays.items()}, strict=False)
    with torch.no_grad():
        return model(torch.from_numpy(x)).numpy()


def in_float32(document, training):
    """By the runners of both frameworks: eager PyTorch, MindSpore in graph mode."""
    arrays, x = drawn(document)
    single = {key: array.astype(np.float32) for key, array in arrays.items()}
    for framework in ("torch", "mindspore"):
        runner = make_runners(preset_of(document), single, [framework], compiled=False)[0][-1]
        yield runner.forward(x.astype(np.float32), training)


def main():
    print("| network | mode | NumPy, float64 | PyTorch, float64 | PyTorch, float32 | MindSpore, float32 |")
    print("| --- | --- | --- | --- | --- | --- |")
    for document in map(read, FILES):
        cifar = ", CIFAR strides" if document["cifar"] else ""
        name = f"{document['arch']}, width {document['width_multiplier']}{cifar}, {document['input_size']} pixels"
        for training, mode in OUTPUTS.items():
            arrays, x = drawn(document)
            found = [ReferenceModel(preset_of(document), arrays)(x, training=training), in_float64(document, training)]
            found += in_float32(document, training)
            cells = (f"{share(output, document, training):.1e}" for output in found)
            print(f"| {name} | {mode.removesuffix('_logits')} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
