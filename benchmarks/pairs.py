"""`pairs`: MindCV's networks against torchvision's and timm's of the same name, with equal weights.

No weights are downloaded. PyTorch's random weights, with random statistics, are copied into MindCV's network, and
`maam.port` compares both.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from maam import _io
from maam._system import environment
from maam.backend.registry import load_porting_backend
from maam.errors import MaamError, require

EQUAL, BUT_FOR, OTHER = "equal", "equal but for", "another network"
_CLASSES = 10
_NOISE = 0.1


class Networks(NamedTuple):
    """A network of MindCV and one of torchvision or timm.

    Attributes:
        mindcv: MindCV's name.
        library: "torchvision" or "timm".
        name: the name there.
        size: the height and width of the images.
        torch_options: arguments of the PyTorch network.
        mindcv_options: arguments of MindCV's network.
    """

    mindcv: str
    library: str
    name: str
    size: int = 64
    torch_options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    mindcv_options: dict[str, Any] = {}  # noqa: RUF012  # never changed


_NO_AUX = {"aux_logits": False}
NETWORKS = (
    Networks("convnext_tiny", "torchvision", "convnext_tiny"),
    Networks("densenet121", "torchvision", "densenet121"),
    Networks("efficientnet_b0", "torchvision", "efficientnet_b0"),
    Networks("googlenet", "torchvision", "googlenet", 64, {**_NO_AUX, "init_weights": False}, _NO_AUX),
    Networks("mnasnet_050", "torchvision", "mnasnet0_5"),
    Networks("mnasnet_100", "torchvision", "mnasnet1_0"),
    Networks("mobilenet_v2_100", "torchvision", "mobilenet_v2"),
    Networks("mobilenet_v3_large_100", "torchvision", "mobilenet_v3_large"),
    Networks("mobilenet_v3_small_100", "torchvision", "mobilenet_v3_small"),
    Networks("regnet_x_400mf", "torchvision", "regnet_x_400mf"),
    Networks("regnet_y_400mf", "torchvision", "regnet_y_400mf"),
    Networks("resnet18", "torchvision", "resnet18"),
    Networks("resnet50", "torchvision", "resnet50"),
    Networks("resnext50_32x4d", "torchvision", "resnext50_32x4d"),
    Networks("shufflenet_v2_x0_5", "torchvision", "shufflenet_v2_x0_5"),
    Networks("shufflenet_v2_x1_0", "torchvision", "shufflenet_v2_x1_0"),
    Networks("squeezenet1_0", "torchvision", "squeezenet1_0"),
    Networks("squeezenet1_1", "torchvision", "squeezenet1_1"),
    Networks("vgg11", "torchvision", "vgg11"),
    Networks("edgenext_xx_small", "timm", "edgenext_xx_small"),
    Networks("ghostnet_100", "timm", "ghostnet_100", 128, {"drop_rate": 0.0}, {"drop_rate": 0.0}),  # a function there
    Networks("mixnet_s", "timm", "mixnet_s"),
    Networks("mobilenet_v1_100", "timm", "mobilenetv1_100"),
    Networks("mobilevit_xx_small", "timm", "mobilevit_xxs"),
    Networks("pit_ti", "timm", "pit_ti_224", 224),
    Networks("poolformer_s12", "timm", "poolformer_s12"),
    Networks("pvt_v2_b0", "timm", "pvt_v2_b0", 224),
    Networks("repvgg_a0", "timm", "repvgg_a0"),
    Networks("res2net50", "timm", "res2net50_26w_4s"),
    Networks("resnet18", "timm", "resnet18"),
    Networks("seresnet18", "timm", "seresnet18"),
    Networks("skresnet18", "timm", "skresnet18"),
    Networks("xception", "timm", "legacy_xception", 96),
)


def pairs(
    only: Annotated[str, typer.Option(help="comma-separated names of MindCV; default: all")] = "",
    runs: Annotated[Path, typer.Option(help="folder of finished comparisons, which are not repeated")] = Path(
        "runs/pairs"
    ),
    out: Annotated[Path | None, typer.Option(help="write the page to this file")] = None,
    batch_size: Annotated[int, typer.Option(min=2, help="images in a comparison")] = 2,
) -> None:
    """Compare MindCV's networks with torchvision's and timm's, and print a table of what differs."""
    require("mindcv", "mindcv")
    load_porting_backend("mindspore")  # before MindCV's networks compute: MindSpore 2.10 fails with NumPy 2 otherwise
    names = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := names - {pair.mindcv for pair in NETWORKS}:
        raise MaamError(f"--only: unknown networks {', '.join(sorted(unknown))}")
    runs.mkdir(parents=True, exist_ok=True)
    found = []
    for pair in NETWORKS:
        path = runs / f"{pair.mindcv}-{pair.library}.json"
        if (not names or pair.mindcv in names) and not path.exists():
            print(f"{pair.mindcv} and {pair.library}'s {pair.name} ...", file=sys.stderr, flush=True)
            _io.write_text(path, json.dumps(compare(pair, batch_size), indent=1) + "\n")
        if path.exists():
            found.append(json.loads(path.read_text("utf-8")))
    page = "\n".join(lines(found)) + "\n"
    print(page)
    if out is not None:
        _io.write_text(out, page)


def compare(pair: Networks, batch_size: int) -> dict[str, Any]:
    """Return the outcome of a comparison as a document for JSON."""
    from maam.porting import port

    start = time.process_time()
    document: dict[str, Any] = {"mindcv": pair.mindcv, "other": f"{pair.library}'s {pair.name}", "size": pair.size}
    try:
        cell, module = _cell(pair), _module(pair)
        report = port(module, cell, input_shape=(3, pair.size, pair.size), batch_size=batch_size, steps=1)
    except MaamError as error:
        return {**document, "verdict": OTHER, "where": " ".join(str(error).split()).partition("; give both")[0]}
    verdict, where = judge(report)
    found = report.document()
    kept = {key: found[key] for key in ("how", "remarks", "causes", "rows", "environment", "first_difference")}
    return {**document, "verdict": verdict, "where": where, "seconds": time.process_time() - start, **kept}


def judge(report: Any) -> tuple[str, str]:
    """Return the verdict of a report, and the causes or the place of the difference."""
    from maam.porting.causes import CODE, UNKNOWN

    if report.passed:
        return EQUAL, ""
    causes = [cause for cause in report.causes if cause.seen]
    unknown = [cause for cause in causes if cause.what in (CODE, UNKNOWN)]
    if unknown or not causes:
        first = unknown[0] if unknown else None
        where = f"{first.layers[0]}: {first.text}" if first else f"first at {report.first_difference}"
        known = _causes([cause for cause in causes if cause not in unknown])
        return OTHER, where + (f"; besides, {known}" if known else "")
    return BUT_FOR, _causes(causes)


def _causes(causes: Iterable[Any]) -> str:
    return "; ".join(f"{cause.title}: {cause.text}" for cause in causes)


def _module(pair: Networks) -> Any:
    """Return the PyTorch network with random statistics and random arrays where fresh ones are ones and zeros."""
    import torch

    torch.manual_seed(0)
    if pair.library == "timm":
        import timm

        module = timm.create_model(pair.name, num_classes=_CLASSES, **pair.torch_options)
    else:
        import torchvision

        module = getattr(torchvision.models, pair.name)(num_classes=_CLASSES, **pair.torch_options)
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.squeeze().ndim <= 1 and tensor.is_floating_point():  # statistics, norms, biases, scales
                tensor.add_(_NOISE * torch.rand_like(tensor))
    return module


def _cell(pair: Networks) -> Any:
    import mindspore
    from mindcv.models import create_model

    mindspore.set_seed(0)
    return create_model(pair.mindcv, num_classes=_CLASSES, **pair.mindcv_options)


def lines(found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines of the page."""
    counts = {verdict: sum(item["verdict"] == verdict for item in found) for verdict in (EQUAL, BUT_FOR, OTHER)}
    versions = ", ".join(f"{name} {version}" for name, version in environment().items())
    return [
        "# MindCV's networks against torchvision's and timm's",
        "",
        "PyTorch's random weights were copied into MindCV's network of the same name, and `maam port` compared both:",
        "each layer, outputs, running statistics, gradients and a training step. No weights were downloaded.",
        "",
        f"Of {len(found)} pairs, {counts[EQUAL]} are equal, {counts[BUT_FOR]} are equal but for settings of layers, "
        f"and {counts[OTHER]} are different networks.",
        "",
        "| MindCV | PyTorch | image | verdict | causes, or where they differ first |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {item['mindcv']} | {item['other']} | {item['size']} | {item['verdict']} | {_cell_text(item['where'])} |"
            for item in found
        ),
        "",
        f"Made by `python -m benchmarks pairs`; {versions}.",
    ]


def _cell_text(text: str) -> str:
    return text.replace("|", "\\|")[:700]
