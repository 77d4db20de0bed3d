"""A run in a separate process that is killed in a write of a file: `kill_worker.py FRAMEWORK OUT FILE WRITE`.

FILE is "last" or "final"; WRITE counts its writes from 1.
"""

import os
import signal
import sys
from itertools import count
from pathlib import Path

from maam.training import default_recipe, train

framework, out, file, doomed = sys.argv[1:]
write_bytes, writes = Path.write_bytes, count(1)


def write_half_and_die(path, data):
    """Count the writes of the file; stop halfway in the given one, as a power cut does."""
    if f".{file}." in path.name and next(writes) == int(doomed):
        write_bytes(path, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write_bytes(path, data)


Path.write_bytes = write_half_and_die
changes = {"epochs": 6, "batch_size": 128, "ema_decay": 0.9, "overrides.num_agents": 1}
recipe = default_recipe("maam_digits").replaced(changes)
train("maam_digits", recipe, out=out, framework=framework, resume="auto", checkpoint_steps=3, log_steps=1)
