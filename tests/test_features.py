"""A model cut within a stage gives the whole model's feature maps, in every framework."""

import numpy as np
import pytest

from maam.parity import make_runners
from maam.reference import ReferenceModel
from maam.spec import draw, preset


@pytest.mark.parametrize("framework", ["torch", "mindspore"])
@pytest.mark.parametrize(("name", "path"), [("mafc_v2", "backbone.stage3"), ("mobilenet_v1", "backbone.stage2.unit1")])
def test_the_feature_maps_are_the_whole_models(framework, name, path):
    pytest.importorskip(framework)
    model = preset(name, width_multiplier=0.25, cifar=True)
    trunk = model.until(path)
    arrays = draw(model.parameters(), 0)
    images = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    maps = {}
    referee = ReferenceModel(model, arrays)
    referee.observer = lambda at, _, output: maps.update({at: output})
    referee(images)
    own = {parameter.name: arrays[parameter.name] for parameter in trunk.parameters()}
    runners, missing = make_runners(trunk, own, [framework], compiled=False)
    assert runners
    assert not missing
    for runner in runners:
        np.testing.assert_allclose(runner.forward(images), maps[path], rtol=1e-4, atol=1e-6)
