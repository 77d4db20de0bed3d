"""Files of ExecuTorch compute the same as the model. `make test-executorch` creates the environment."""

import json

import numpy as np
import pytest

from maam import export, spec
from maam.deploy import open_exported
from maam.weights import write_weights

pytest.importorskip("executorch")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]


@pytest.mark.parametrize("name", ["maam_digits", "maam_cifar10_2m3", "mafc_v3_small"])
def test_a_program_computes_the_same_as_the_model(name, tmp_path):
    import torch

    from maam.torch import load

    source, target = tmp_path / "m.safetensors", tmp_path / "m.pte"
    node = spec.preset(name)
    write_weights(source, node, spec.draw(node.parameters(), 0))
    assert export(source, target).format == "executorch"
    predict, metadata = open_exported(target)
    assert metadata["maam.name"] == node.name
    assert json.loads(metadata["maam.preprocessing"])["size"] == list(node.input_shape[1:])
    model = load(source).eval()
    for batch in (1, 5):
        x = np.random.default_rng(batch).random((batch, *node.input_shape)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(x)).numpy()
        np.testing.assert_allclose(predict(x), expected, rtol=1e-4, atol=1e-4)
