"""The description of a run's data in run.json, so that a run is not resumed on other data."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import Any

from maam._messages import listed
from maam.data import ImageDataset, ImageFolder
from maam.errors import TrainingError
from maam.training.run_dir import RunFolder
from maam.training.sources import Source

SPLITS = {"train": "training", "test": "test"}


def describe_data(source: Source) -> dict[str, Any]:
    """Return the number of images and a fingerprint of each split.

    The fingerprint of image files covers their paths below the folder and their labels, not the pixels, because every
    file would have to be read. That of images in memory covers pixels and labels.
    """
    found: dict[str, Any] = {}
    for split in SPLITS:
        dataset = getattr(getattr(source, split), "dataset", None)
        if isinstance(dataset, (ImageDataset, ImageFolder)):
            found[split] = {"images": len(dataset), "fingerprint": _fingerprint(dataset)}
    return found


def _fingerprint(dataset: ImageDataset | ImageFolder) -> str:
    digest = hashlib.sha256(json.dumps(list(dataset.class_names)).encode())
    digest.update(dataset.labels.tobytes())
    if isinstance(dataset, ImageFolder):
        digest.update("\0".join(dataset.files).encode(errors="surrogateescape"))
    else:
        digest.update(str(dataset.images.shape).encode())
        digest.update(dataset.images.data)
    return digest.hexdigest()[:32]


def check_same_data(folder: RunFolder, source: Source) -> None:
    """Check that a resumed run has the classes and images that it was started with.

    Runs of earlier versions have the names of the classes only. A missing or broken run.json is not compared.

    Raises:
        TrainingError: the data differs.
    """
    session: dict[str, Any] = {}
    with contextlib.suppress(TrainingError):
        session = folder.sessions()[-1]
    names, now = session.get("class_names"), list(source.class_names)
    before = session.get("data")
    difference = ""
    if isinstance(names, list) and names != now:
        gone, new = (
            [str(name) for name in one if name not in other][:5] for one, other in ((names, now), (now, names))
        )
        parts = (f"{what}: {listed(some)}" for what, some in (("missing", gone), ("new", new)) if some)
        difference = f"the classes differ ({'; '.join(parts) or 'in another order'})"
    elif isinstance(before, dict):
        difference = _difference(before, describe_data(source))
    if difference:
        raise TrainingError(
            f"{folder.path}: the data is not that of this run: {difference}; restore the data to resume it, or start "
            f"a new run from its weights in another folder, with weights={str(folder.path)!r} "
            f"(--weights {folder.path} --out OTHER)"
        )


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    for split, what in SPLITS.items():
        old, new = before.get(split), now.get(split)
        if isinstance(old, dict) and new is not None and old != new:
            if old.get("images") != new["images"]:
                return f"{new['images']} {what} images, {old.get('images')} before"
            return f"the {what} images have other names, labels or pixels than before"
    return ""
