"""Small results that take seconds to measure, kept in the user's cache folder; losing them costs only time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from maam._io import write_text

OFF = ("off", "0", "false", "no")


def cache_folder() -> Path | None:
    """Return the folder of maam's cache; None if it is switched off or there is no home folder.

    MAAM_CACHE is the folder, or "off". Otherwise it is `maam` in XDG_CACHE_HOME, or in ~/.cache (in LOCALAPPDATA on
    Windows). A relative XDG_CACHE_HOME is ignored, as its specification demands.
    """
    chosen = os.environ.get("MAAM_CACHE", "")
    if chosen:
        return None if chosen.lower() in OFF else Path(chosen)
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base, "maam")
    try:
        return Path.home() / ".cache" / "maam"
    except RuntimeError:
        return None


def read_cached(kind: str, key: Any) -> dict[str, Any]:
    """Return the result that was kept under a key; empty if there is none, or if it cannot be read.

    Args:
        kind: the name of a group of results.
        key: JSON data that determines the result.
    """
    path = _path(kind, key)
    try:
        document = {} if path is None else json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    found = document.get("result") if isinstance(document, dict) and document.get("key") == key else {}
    return found if isinstance(found, dict) else {}


def write_cached(kind: str, key: Any, result: dict[str, Any]) -> None:
    """Keep a result, JSON data, under a key; do nothing if that is not possible."""
    path = _path(kind, key)
    if path is not None:
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps({"key": key, "result": result}, indent=1) + "\n")


def _path(kind: str, key: Any) -> Path | None:
    folder = cache_folder()
    text = json.dumps(key, sort_keys=True)
    return None if folder is None else folder / kind / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
