"""Command lines that are refused: the start of the message, or all of it, and that no file is written."""

import shlex
import shutil
from pathlib import Path

import pytest

from maam import spec
from maam.reference import build, save_weights

ABSENT = "none.safetensors: no such file"
FEWER = "expected at most 1,138, so that a batch of 300 is left"
DEVICE = "device: expected one of cpu, cuda, ascend, got"
DTYPE = "expected one of float16, bfloat16, float32, float64"
NO_CHECKPOINT = "runs/MAFCV1_: no checkpoint; expected one of final.safetensors, *.pth.tar, *.pth"
NO_NAMES = "no such file; give a text file with one name on each line, or comma-separated names"
NO_WEIGHTS = "no such file or folder, and the package has no pretrained weights of this name"
SOME = "expected some of torch, mindspore"
FOLDER = "expected a file in a folder that exists"
NONE = "expected at least one name"
NO_GATE = "the network has no gate, so it has no attention maps; expected attention"
WITHOUT_GATES = ("cifar.safetensors", "selective.safetensors", "maam_net_s")
PICTURE = "expected a file name that ends in .png, .svg, .pdf, .eps, .jpg, .jpeg, .tif, .tiff, .webp"
TWICE = "writes this file too; give each result its own name"
PUBLISHED = Path(__file__).parents[2] / "docs" / "results" / "runs"
PLAIN = {
    **{f"{command} none.safetensors x.safetensors": ABSENT for command in ("convert", "fuse", "prune")},
    "info none.safetensors": ABSENT,
    "convert net.safetensors x.safetensors --spec nope": "no preset 'nope'; `maam list` shows",
    "convert net.safetensors x.safetensors --spec none.json": "none.json: cannot be read",
    "convert layer.safetensors x.safetensors --spec maam_digits": "layer.safetensors: saved with another spec",
    "convert net.safetensors x.safetensors --dtype half": f"dtype: {DTYPE}, got half\n",
    "info empty.safetensors": "empty.safetensors: not a safetensors file, or truncated",
    "info empty.json": "empty.json: spec: not a JSON document",
    "info bin.json": "bin.json: cannot be read: it is not UTF-8 text",
    "info missing.json": "missing.json: cannot be read: No such file or directory",
    "info 'a\nb.json'": "a b.json: cannot be read: No such file or directory",
    "info zero.json": "zero.json: linear: in_features: ",
    "info deep.json": "deep.json: spec: the document is nested too deeply",
    "info .": ".: this is a folder, and it contains cifar.safetensors, empty.safetensors, ",
    "info folder.json": "folder.json: this is a folder, and it contains no weights; give a weights file or the folder",
    "convert net.safetensors x.onnx": "x.onnx: this is a format of inference engines; write it with: maam export SRC",
    **{f"list '{p}'": f"no preset matches '{p}'; `maam list` shows all" for p in ("zzz", "[", "", "MAAM_DIGITS?")},
    "fuse net.safetensors none/x.safetensors": "none/x.safetensors: the folder none does not exist",
    "fuse net.safetensors x.safetensors --root .": "--root .: this has no effect without --data",
    "fuse net.safetensors x.safetensors --data mnist": "--data: expected one of digits",
    "fuse net.safetensors x.safetensors --frameworks reference": f"--frameworks: {SOME}, got 'reference'",
    "fuse net.safetensors x.safetensors --frameworks torch": "--frameworks: this has no effect without --data",
    "fuse net.safetensors old.safetensors": "old.safetensors: the file exists; use another name, or overwrite=True",
    "prune net.safetensors x.safetensors": "nothing to prune with min_weight=0.0 and channels=0.0",
    "prune net.safetensors x.safetensors --channels 2": "channels: expected a number in [0, 1), got 2.0",
    "prune net.safetensors x.safetensors --channels 0.5 --root .": "--root .: this has no effect without --data",
    "prune net.safetensors net.safetensors --channels 0.5": "net.safetensors: the file exists",
    "data mnist sets": "name is 'mnist'; expected 'cifar10' or 'cifar100'\n",
    "data cifar10 one.png": "one.png: cannot store cifar10 (",
    "doctor --quick --device tpu": f"{DEVICE} 'tpu'\n",
    "parity maam_digits --stages forwards": "stages: expected names from exchange, lattice, ",
    "parity maam_digits --frameworks jax": "framework: expected one of torch, mindspore, reference, got 'jax'",
    f"parity maam_digits --stages exchange --seed {10**30}": "seed: expected an integer in [0, 2**63), got 1000",
}
WITH_PACKAGES = {
    **{f"{command} none.safetensors": ABSENT for command in ("optimize", "evaluate", "train maam_digits --weights")},
    **{f"{command} none.safetensors m.pt2": ABSENT for command in ("predict", "export", "quantize --data digits")},
    "export net.safetensors": "give OUT, a file name with the suffix of a format, or --format: onnx, openvino, pt2, ",
    "export net.safetensors --format tflite": "--format: expected one of onnx, openvino, pt2, executorch, air, mindir,",
    "export net.safetensors m.foo": "m.foo: unknown suffix '.foo'",
    "export net.safetensors none/m.pt2": "none/m.pt2: the folder none does not exist; create it first",
    "export net.safetensors old.pt2": "old.pt2: the file exists",
    "optimize net.safetensors --engine x --batch 1": "engine: expected one of torch, onnxruntime, openvino, auto, got",
    "export net.safetensors m.pt2 --mean a": "--mean: expected comma-separated numbers, got 'a'",
    "export net.safetensors m.pt2 --mean nan": "mean: expected finite values, got nan",
    "export net.safetensors m.pt2 --std inf": "std: expected finite values, got inf",
    **{f"export net.safetensors m.pt2 --classes {n}": f"--classes {n}: {NO_NAMES}" for n in ("no.txt", "folder/names")},
    "export net.safetensors m.pt2 --classes bin.json": "--classes bin.json: cannot be read: it is not UTF-8 text",
    "optimize net.safetensors --batch 0": "--batch: expected comma-separated integers from 1 to 4096",
    **{f"optimize net.safetensors --{option} ,": f"--{option}: {NONE}" for option in ("engine", "precision")},
    "quantize net.safetensors q.onnx --data digits --images 9999": "--images: expected at most ",
    "quantize net.safetensors q.onnx --data digits --std 0": "std: expected positive",
    "quantize net.safetensors q.onnx --data digits --mean 1,2": "mean: expected a list of 1 number",
    "prune square.safetensors x.safetensors --channels 0.5 --data digits": (
        "--data measures accuracy: expected a classifier, got a model whose output is a map (8, 8, 8)"
    ),
    "train": "no model to train: name a preset",
    "train maam_digit": "no preset 'maam_digit'; did you mean 'maam_digits'",
    "train maam_digits --epochs 0": "recipe: epochs: input should be greater than or equal to 1, got 0",
    "train maam_digits --recipe digit": "no recipe 'digit', and no file that ends in .toml; did you mean 'digits'?",
    "train maam_digits -o optimizer.l=3": "recipe: optimizer.l: no such field; did you mean 'lr'?",
    "train maam_cifar10_2m3": "data cifar10 needs root (--root DIR)",
    "train maam_digits -o model=cnn": "-o model=cnn contradicts the model maam_digits; give one of them",
    "train -o model=nothing": "no preset 'nothing'",
    "train maam_digits --weights no.pth": "no.pth: no such file",
    "train maam_digits --batch-size 300 -o validation=1139": f"validation: {FEWER} of the 1,438 training images",
    "train maam_digits --seed -1": "recipe: seed: input should be greater than or equal to 0, got -1",
    "train resnet18": "no preset 'resnet18'; `maam list` shows all. maam trains presets, weights files and spec docume",
    "train maam_digits -o class_weights=[1]": "recipe: class_weights: no such field; maam has no weights of classes",
    "train cnn --framework pytorch": "framework: expected one of torch, mindspore, got 'pytorch'; did you mean 'torch'",
    "train maam_digits --device gpu": f"{DEVICE} 'gpu'; did you mean 'cuda'?",
    "train maam_digits -o epochs": "override 'epochs': expected FIELD=VALUE",
    "train maam_digits --precision int8": "recipe: precision: input should be",
    "train maam_cifar10_2m3 --root none": "none",
    "train maam_digits -o root=.": "recipe: root: no such field",
    "train --resume --out folder.json": "folder.json: there is no run to resume in this folder, because run.json is",
    "train maam_digits --resume --out typo": "typo: there is no run to resume in this folder; check its name (--out), ",
    "train maam_digits --out run": "run: this folder contains a run; continue it with resume=True (--resume), ",
    "train maam_digits --epochs 1 -o epochs=2": "-o epochs=2 contradicts --epochs 1; give one of them",
    "train maam_digits --weights A -o weights=B": "-o weights=B contradicts --weights A; give one of them",
    "train maam_digits --seed 0 -o seed=3": "-o seed=3 contradicts --seed 0; give one of them",
    "train maam_digits --lr 0.1 -o optimizer.lr=0.2": "-o optimizer.lr=0.2 contradicts --lr 0.1; give one of them",
    "train maam_digits --lr 0.1 -o optimizer={lr=0.2}": "-o optimizer.lr=0.2 contradicts --lr 0.1; give one of them",
    "runs absent": "absent: no such folder; pass the folder of a run",
    "runs folder.json": "folder.json: contains no run with a finished epoch; pass the folder of a run",
    "runs search": "search/cnn: this run cannot be read: search/cnn/run.json: expected the description of a run",
    "runs run --out table.txt": "--out table.txt: expected a file name that ends in .md",
    "runs run --out no/t.md": f"--out no/t.md: {FOLDER}",
    "predict maam_nets one.png": f"maam_nets: {NO_WEIGHTS}; did you mean 'maam_net_",
    "predict MAAM_NET_S one.png": f"MAAM_NET_S: {NO_WEIGHTS}; did you mean 'maam_net_s'?",
    "evaluate maam_net_l": f"maam_net_l: {NO_WEIGHTS}; weights exist for: maam_cifar10_2m3, maam_net_m",
    "export maam_digits d.onnx": f"maam_digits: {NO_WEIGHTS}; weights exist for: ",
    "predict '' one.png": "expected a weights file, the folder of a run or the name of a preset, got an",
    "predict cifar.safetensors no.png": "no.png: no such file",
    "predict one.png run": "one.png: this is the name of an image; the model comes first, then the images: predict_f",
    "predict cifar.safetensors one.png --classes no.txt": "--classes no.txt: no such file",
    "predict cifar.safetensors one.png --classes bin.json": "--classes bin.json: cannot be read: it is not UTF-8 text",
    "predict cifar.safetensors one.png --framework jax": "framework: expected one of torch, mindspore, reference",
    "predict cifar.safetensors one.png --recipe no": "no recipe 'no'",
    "predict cifar.safetensors one.png --on-broken ignore": "on_broken is 'ignore'; expected",
    "predict cifar.safetensors one.png -o images.size=64": "recipe: images: resize is 32; expected at least size, 64",
    "evaluate run --data mnist": "data: expected one of ",
    "evaluate run --data imagefolder --root one.png -o images.size=8": "one.png: this is a file; expected ",
    "evaluate cifar.safetensors --data cifar10 --root one.png": "one.png: this is a file; expected the folder that ",
    "evaluate cifar.safetensors --data digits": (
        "data digits has images of 1x8x8 (channels, height, width), but the model takes (N, 3, 32, 32); choose other "
    ),
    "evaluate run --data cifar10": "data cifar10 needs root (--root DIR)",
    "evaluate run --data digits --framework torch,jax": f"--framework: {SOME}, reference, got 'jax'",
    "evaluate run --data digits --framework ''": f"--framework: {NONE}",
    "evaluate run/last.safetensors --data digits": "run/last.safetensors: this is a training checkpoint",
    "evaluate layer.safetensors --data digits": "data digits has images of 1x8x8 ",
    "evaluate layer.safetensors": "layer.safetensors: no recipe names the data to evaluate on; give it (--data NAME)",
    "demo --out old.pt2": "old.pt2: File exists",
    "maf": "../../../datasets/ImageNet/train: no such folder; expected ../../../datasets/ImageNet/train/CLASS/*.jpg",
    "maf -e": f"{NO_CHECKPOINT}: train with `maam maf -a MAFCV1`, or put the published checkpoint there\n",
    "maf -e --epochs 3": "--epochs: this has no effect with -e (--evaluate)",
    "maf -a MAFCV9": "no preset 'MAFCV9'",
}
BEFORE_WORK = {
    "parity nope": "no preset 'nope'; `maam list` shows",
    **{f"parity maam_digits --{option} ' , '": f"--{option}: {NONE}" for option in ("stages", "frameworks")},
    "parity maam_digits --data mnist": "--data: expected one of digits, cifar10, cifar100, got 'mnist'",
    "parity maam_digits --data cifar10": "data cifar10 needs root (--root DIR), the folder that `maam data cifar10",
    "parity cnn --data cifar10 --root none": "none: found neither cifar-10-batches-bin nor ",
    "parity cnn --root none": "--root none: this has no effect without --data",
    "parity cnn --data digits": "--data digits: expected an input (N, 3, 32, 32), got (359, 1, 8, 8)",
    "parity layer.safetensors --data digits": "--data digits: expected an input (N, 3, H, W), got (359, 1, 8, 8)",
    "parity three.json --data digits": "--data digits has 10 classes, but the model has 3",
    **{
        f"{command} {path}": f"{command.split()[-1]} {path}: {FOLDER}"
        for command in ("parity cnn --json", "parity cnn --plot", "evaluate run --json", "predict run one.png --json")
        for path in ("none/x.png", ".")
    },
    "parity cnn --json r --html ./r": f"--html r: --json {TWICE}",
    "parity cnn --json x.png --plot x.png": "--plot x.png: --json writes this file too",
    "parity three.json --json three.json": "--json three.json: the command reads this file; give the result another",
    "parity cnn --plot x.foo": "--plot x.foo: expected a file name that ends in .png, .svg, .pdf",
    "evaluate run --data digits --framework reference,torch --device cuda:9": f"{DEVICE} 'cuda:9'",
    "predict run one.png --json m --attention-maps m": f"--attention-maps m: --json {TWICE}\n",
    "predict run one.png --json one.png": "--json one.png: the command reads this file",
    **{f"predict {name} one.png --attention-maps x.png": f"{name}: {NO_GATE}" for name in WITHOUT_GATES},
    "predict run one.png --attention-maps x.xyz": f"--attention-maps x.xyz: {PICTURE}\n",
    "predict run one.png --attention-maps x": f"--attention-maps x: {PICTURE}\n",
    "predict run one.png --attention-maps x.png.txt": f"--attention-maps x.png.txt: {PICTURE}\n",
}
"""Command lines that are refused before the work, which would take longer."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("refusals")
    nodes = {"net": spec.preset("maam_digits"), "cifar": spec.preset("maam_cifar10", channels=8)}
    nodes |= {"layer": spec.maam(3), "square": spec.maam(1, 8)}
    nodes["selective"] = spec.preset("mobilenet_v2", attention="sk", width_multiplier=0.25, cifar=True)
    for name, node in nodes.items():
        save_weights(build(node, seed=0), path / f"{name}.safetensors")
    for name in ("empty.safetensors", "empty.json", "one.png", "old.pt2", "old.safetensors"):
        (path / name).touch()
    for name in ("folder.safetensors", "folder.json"):
        (path / name).mkdir()
    (path / "bin.json").write_bytes(b"\xff\xfe\x00")
    (path / "zero.json").write_text('{"kind": "linear", "in_features": 0}')
    (path / "deep.json").write_text("[" * 100_000)
    (path / "three.json").write_text(spec.preset("maam_digits", num_classes=3).to_json())
    shutil.copytree(PUBLISHED / "cnn-seed0-torch", path / "search" / "cnn")
    (path / "search" / "cnn" / "run.json").write_text("[]")
    return path


@pytest.fixture(scope="module")
def with_run(folder, finished):
    pytest.importorskip("torchvision")
    shutil.copytree(finished, folder / "run")


@pytest.fixture
def refused(fails, folder, monkeypatch):
    """Check a message, or its start if it does not end in a new line, and that the command changes no file."""
    monkeypatch.chdir(folder)

    def check(line, message):
        before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}
        assert f"{fails(*shlex.split(line))}\n".startswith(message)
        assert {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")} == before

    return check


@pytest.mark.parametrize("line", PLAIN)
def test_refused(refused, line):
    refused(line, PLAIN[line])


@pytest.mark.parametrize("line", [*WITH_PACKAGES, *BEFORE_WORK])
@pytest.mark.usefixtures("with_run")
def test_refused_with_packages(refused, monkeypatch, line):
    for work in ("parity.check", "predict.evaluate_file", "predict.predict_files") if line in BEFORE_WORK else ():
        monkeypatch.setattr(f"maam.cli.{work}", None)
    refused(line, (WITH_PACKAGES | BEFORE_WORK)[line])
