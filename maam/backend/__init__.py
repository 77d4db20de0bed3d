"""Backends: what a framework provides to maam, the registry of frameworks, and what all backends share.

`maam.backend.protocol` is the contract. `maam.backend.registry` finds and imports backends by name. `register` adds
another framework, which parity, evaluation and prediction can then use.
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
