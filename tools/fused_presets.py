"""Every preset that has something to fuse, held to its fused form on all test images of CIFAR-10.

python tools/fused_presets.py [PRESET ...] --root datasets  prints a Markdown table: the network for 32x32 images and
ten classes, freshly initialised (seed 0), in PyTorch and in both modes of MindSpore. Up to 40 minutes each.
"""

import argparse
from pathlib import Path

import maam
from maam import spec
from maam.backend.registry import make_runners
from maam.cli.predict import test_images
from maam.errors import require
from maam.deploy.fusing import agreements
from maam.fusion.rewrite import is_fusible

FRAMEWORKS = ["torch", "mindspore"]


def network(name):
    """The preset for CIFAR-10."""
    options = {"num_classes": 10, "in_channels": 3, "cifar": True, "image_size": 32}
    known = spec.preset_options(name)
    if "cifar" in known:
        del options["image_size"]
    return maam.preset(name, **{key: value for key, value in options.items() if key in known})


def row(name, images):
    """The cells of a preset."""
    node = network(name)
    arrays = spec.draw(node.parameters(), 0)
    forms = (node, arrays), maam.fuse(node, arrays)
    plain, fused = (make_runners(*form, FRAMEWORKS, compiled=False)[0] for form in forms)
    found = list(agreements(list(zip(plain, fused, strict=True)), images))
    different = ", ".join(str(one.different) for one in found)
    return [f"`{name}`", different, *(f"{one.relative:.1e}" for one in found)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    images, _ = test_images("cifar10", options.root)
    names = [name for name in options.presets or spec.list_presets() if is_fusible(network(name))]
    if unfit := sorted(set(options.presets) - set(names)):
        parser.error(f"nothing to fuse in {', '.join(unfit)}")
    for framework in FRAMEWORKS:
        require(framework, framework)
    print("| preset | images of another class | torch | mindspore graph | mindspore pynative |")
    print("| --- | --- | --- | --- | --- |")
    for name in names:
        print(f"| {' | '.join(row(name, images))} |", flush=True)


if __name__ == "__main__":
    main()
