"""Backends: what a framework provides to maam, the registry of frameworks, and what all backends share.

`maam.backend.protocol` is the contract, `maam.backend.registry` finds and imports backends by name. With `register`, a
framework of your own takes part in parity, evaluation and prediction.
"""

from maam.backend.protocol import Backend, Capability, Runner, Trainer, TrainingBackend
from maam.backend.registry import (
    BackendEntry,
    backend_names,
    find_entry,
    is_installed,
    load_backend,
    make_runners,
    register,
    unregister,
)

__all__ = [
    "Backend",
    "BackendEntry",
    "Capability",
    "Runner",
    "Trainer",
    "TrainingBackend",
    "backend_names",
    "find_entry",
    "is_installed",
    "load_backend",
    "make_runners",
    "register",
    "unregister",
]
