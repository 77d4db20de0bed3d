"""Small models of timm, and images for them."""

import pytest

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")

import maam.timm  # noqa: E402, F401

SMALL = {"width_multiplier": 0.25, "cifar": True}


@pytest.fixture(autouse=True)
def seeded(tmp_path, monkeypatch):
    """The same weights each time; files land in a folder of the test's."""
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images():
    """Two images, (2, channels, size, size)."""

    def make(size=32, channels=3):
        return torch.rand(2, channels, size, size)

    return make


@pytest.fixture
def made():
    """A small model of ours by timm's own function."""

    def make(name, **options):
        small = SMALL if name.startswith(("mafc", "mobilenet_v")) else {}
        return timm.create_model(name, **{**small, **options})

    return make


@pytest.fixture
def vit():
    """A vision transformer of two blocks, of patches of 4x4 in images of 16x16, with one register token."""

    def make(**options):
        given = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 3}
        return timm.models.VisionTransformer(**{**given, "reg_tokens": 1, **options})

    return make


@pytest.fixture
def exported():
    """What a model, exported with a free batch, gives for three images."""

    def run(model, x):
        free = torch.export.Dim.AUTO
        program = torch.export.export(model, (x,), dynamic_shapes=({0: free},))
        return program.module()(torch.cat((x, x[:1])))

    return run


@pytest.fixture
def gradients():
    """The names of the parameters that get no gradient."""

    def missing(model, x):
        model(x).square().sum().backward()
        return [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]

    return missing
