"""The training loop of all frameworks: order, schedule, log and checkpoints; a backend's trainer computes the steps."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from maam._messages import listed
from maam._signals import Deferred
from maam.backend.protocol import ProcessGroup, Runner, SingleProcess, Trainer
from maam.errors import TrainingError
from maam.reference.functions import softmax
from maam.spec import Dropout, Node, Parallel
from maam.training.checkpoint import Checkpoint, find_not_finite
from maam.training.evaluate import Evaluation, evaluate
from maam.training.recipe import Recipe
from maam.training.run_dir import START, Record, RunFolder
from maam.training.schedule import average_decay, learning_rate, mask_seed
from maam.training.sources import Source
from maam.weights import read_weights

Array = np.ndarray[Any, Any]
Item = TypeVar("Item")
CHECKPOINT_STEPS = 200
LOG_STEPS = 50
WARM_STEPS, TIMED_STEPS = 1, 3
"""The number of first steps that are not timed, because they may compile, and the number of steps that are timed."""
TEST_SHARE = 1 / 3
"""The time to evaluate an image, as a share of the time to train on one: forward without backward."""
_REMEDY = "try a smaller optimizer.lr, or clip_norm"


class Observer:
    """A receiver of a run's progress. A subclass overrides the methods that it needs; the others do nothing.

    Example:
        >>> from maam.training import Observer, default_recipe, train
        >>> class Epochs(Observer):
        ...     def epoch(self, record):
        ...         print("epoch", record["epoch"], "at step", record["step"])
        >>> recipe = default_recipe("maam_digits").replaced({"epochs": 2, "batch_size": 512})
        >>> _ = train("maam_digits", recipe, out="runs/observed", observer=Epochs())
        epoch 0 at step 2
        epoch 1 at step 4
    """

    def note(self, text: str) -> None:
        """Receive a message for the user, before the first step."""

    def start(self, step: int, steps: int) -> None:
        """Receive the step from which the run continues, and the number of all steps."""

    def estimate(self, seconds: float) -> None:
        """Receive the estimated time of the rest of the run in seconds, after the first steps."""

    def steps(self, record: Record) -> None:
        """Receive the log's record of the latest steps."""

    def epoch(self, record: Record) -> None:
        """Receive the log's record of an epoch after its evaluation."""


class Loop:
    """The loop of a run, from the trainer's current step to the end of the last epoch.

    Args:
        runner: the model.
        trainer: the trainer of the model.
        recipe: the recipe, with a precision other than "auto".
        source: the data.
        folder: receives log, checkpoints and weights.
        observer: receives every record of the log.
        checkpoint_steps: steps between two checkpoints; there is also one after each epoch.
        log_steps: steps between two records, and between two waits for the device.
        processes: the processes that train together, each with its own loop; only the first one writes files.

    Attributes:
        step: the number of steps so far.
        best: the highest accuracy so far, on the test images or those that `validation` holds out; -1 before the first
            evaluation.
    """

    def __init__(
        self,
        runner: Runner,
        trainer: Trainer,
        recipe: Recipe,
        source: Source,
        folder: RunFolder,
        observer: Observer,
        *,
        checkpoint_steps: int = CHECKPOINT_STEPS,
        log_steps: int = LOG_STEPS,
        processes: ProcessGroup | None = None,
    ) -> None:
        self.runner, self.trainer, self.recipe, self.source = runner, trainer, recipe, source
        self.folder, self.observer, self.processes = folder, observer, processes or SingleProcess()
        self.checkpoint_steps, self.log_steps = checkpoint_steps, log_steps
        self.steps_per_epoch = len(source.train)
        self.total = min(recipe.epochs * self.steps_per_epoch, recipe.max_steps or sys.maxsize)
        self.step = trainer.read_state().step
        self.best = -1.0
        self._stop = Deferred()
        self._pending: list[Any] = []  # results of updates that are still on the device
        self._started = self._waited = 0.0  # since the last record: its start, and seconds of waiting for data
        self._spent = 0.0  # seconds of training in this epoch
        self._rate = 0.0
        self._estimate = Estimate(self.step, self.total)
        self._fusions = fusion_scalars(runner.spec)
        self._has_dropout = any(isinstance(node, Dropout) and node.p > 0 for _, node in runner.spec.walk())

    def run(self) -> None:
        """Train to the end. SIGINT and SIGTERM end the run after the current step, with a checkpoint.

        Raises:
            TrainingError: a loss, weight or moment is not finite, a file cannot be written, or the checkpoint is of a
                later step than the last one.
            KeyboardInterrupt: the run was stopped by SIGINT.
            SystemExit: the run was stopped by SIGTERM.
        """
        if self.step > self.total:
            raise TrainingError(
                f"{self.folder.last}: the checkpoint is of step {self.step}, but the run has only {self.total} steps"
            )
        self.observer.start(self.step, self.total)
        with self._stop:
            self._train()

    def _train(self) -> None:
        self._log_start()
        while self.step < self.total:
            epoch = self.step // self.steps_per_epoch
            self._spent = self._spent_before(epoch)
            self._train_epoch(epoch)
            self._checkpoint()  # raises if weights are not finite, before they are written as the best ones
            self._evaluate_epoch(epoch)
            self.save()
            if self._stop.number:
                self._stop.end()
        # a run can be stopped just before this write, or trained longer, which leaves earlier final weights
        if self.processes.rank == 0 and not self._has_final():
            self.folder.write_final(self.runner.spec, self._final_arrays())

    def _has_final(self) -> bool:
        """Return whether the folder has the final weights of this run; those of a shorter run differ."""
        if not self.folder.final.exists():
            return False
        found, expected = read_weights(self.folder.final)[1], self._final_arrays()
        return found.keys() == expected.keys() and all(np.array_equal(found[name], expected[name]) for name in found)

    def _log_start(self) -> None:
        """Log the fusion weights before the first step."""
        if self.step == 0 and self._fusions and not any(one["kind"] == START for one in self.folder.log.records()):
            fusion = fusion_weights(self._fusions, self._final_arrays())
            self._write_record({"kind": START, "step": 0, "fusion": fusion})

    def _spent_before(self, epoch: int) -> float:
        """Return the training time of this epoch in earlier, interrupted sessions, in seconds."""
        if self.step % self.steps_per_epoch == 0:
            return 0.0
        made = [r.get("seconds") for r in self.folder.log.records() if r["kind"] == "steps" and r.get("epoch") == epoch]
        return sum(seconds for seconds in made if isinstance(seconds, float))

    def _train_epoch(self, epoch: int) -> None:
        self._started, self._waited = time.perf_counter(), 0.0
        for images, labels in self._batches(epoch):
            batch = self.trainer.prepare(images, labels)
            if self._has_dropout:
                self.trainer.seed(mask_seed(self.recipe.seed, self.step, self.processes.rank))
            decay = average_decay(self.recipe, self.step, self.total)
            self._rate = self._next_rate()
            self._pending.append(self.trainer.update(batch, self._rate, decay))
            self.step += 1
            self._estimate_time(len(labels) * self.processes.size)
            over = self.step % self.steps_per_epoch == 0 or self.step == self.total
            if over or self.step % self.log_steps == 0 or self.step % self.checkpoint_steps == 0:
                self._log_steps(epoch, len(labels) * self.processes.size)
            if self.step % self.checkpoint_steps == 0 and not over:
                self.save()
            if self._stop.number and not over:  # after an epoch, the evaluation comes first
                self._end_early(epoch, len(labels) * self.processes.size)
            if self.step == self.total:
                return

    def _end_early(self, epoch: int, batch_size: int) -> None:
        """Write a checkpoint, and end the run because of a signal."""
        if self._pending and self.processes.size == 1:  # other processes may not have received the signal
            self._log_steps(epoch, batch_size)
        self.save()
        self._stop.end()

    def _estimate_time(self, batch_size: int) -> None:
        """Estimate the time of the run from its first steps, and send it to the observer."""
        if not self._estimate.is_due(self.step):
            return
        self.trainer.fetch(self._pending[-1:])  # waits for the device
        if (seconds := self._estimate.measure(self.step)) is not None:
            epochs = math.ceil(self.total / self.steps_per_epoch) - self.step // self.steps_per_epoch
            images = epochs * self.source.test_images
            self.observer.estimate(seconds * (self.total - self.step + TEST_SHARE * images / batch_size))

    def _batches(self, epoch: int) -> Iterator[tuple[Array, Array]]:
        """Yield the remaining batches of an epoch, and add up the time of waiting for them."""
        batches = prefetch(self.source.train.epoch(epoch, self.step % self.steps_per_epoch))
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _next_rate(self) -> float:
        recipe = self.recipe
        return learning_rate(recipe.schedule, recipe.optimizer.lr, self.step, self.total, self.steps_per_epoch)

    def _log_steps(self, epoch: int, batch_size: int) -> None:
        """Fetch the pending losses and accuracies, and log them."""
        found = self.trainer.fetch(self._pending)  # (steps, 2): loss and accuracy
        count, self._pending = len(found), []
        if not np.isfinite(found[:, 0]).all():
            first = int(np.argmin(np.isfinite(found[:, 0])))
            raise TrainingError(
                f"the loss of step {self.step - count + first + 1} is {found[first, 0]}; "
                f"{self.folder.describe_last()}; {_REMEDY}"
            )
        now = time.perf_counter()
        seconds = max(now - self._started, 1e-9)
        record = {
            "kind": "steps",
            "step": self.step,
            "epoch": epoch,
            "lr": self._rate,
            "losses": found[:, 0].tolist(),
            "accuracies": found[:, 1].tolist(),
            "seconds": seconds,
            "images_per_second": count * batch_size / seconds,
            "waiting": self._waited / seconds,
        }
        self._started, self._waited = now, 0.0
        self._spent += seconds
        self._write_record(record)
        self.observer.steps(record)

    def _evaluate_epoch(self, epoch: int) -> None:
        """Evaluate after an epoch, log it, and write the weights if they are the best so far."""
        seconds = self._spent
        found = self.evaluate()
        arrays = self._final_arrays() if self._fusions else {}
        record = {
            "kind": "epoch",
            "step": self.step,
            "epoch": epoch,
            "seconds": seconds,
            "split": self.recipe.split,
            "test_loss": found.loss,
            "test_accuracy": found.accuracy,
            "top5": found.top(5),
            "fusion": fusion_weights(self._fusions, arrays),
        }
        if found.accuracy > self.best:
            self.best = found.accuracy
            if self.processes.rank == 0:
                self.folder.write_best(self.runner.spec, self._final_arrays())
        self._write_record(record)
        self.observer.epoch(record)

    def evaluate(self) -> Evaluation:
        """Evaluate the model that would be saved on all test images; each process evaluates its share of them."""
        share_statistics(self.processes, self.runner, self.trainer)
        own = evaluate(self.trainer.predict, self.source.test_batches())
        return Evaluation(self.processes.gather(own.logits), self.processes.gather(own.labels))

    def save(self) -> None:
        """Write a checkpoint.

        Raises:
            TrainingError: an array is not finite, or a file cannot be written; the previous checkpoint is unchanged.
        """
        if self.processes.rank == 0:
            self.folder.log.sync()
            self.folder.write_last(self._checkpoint())

    def _checkpoint(self) -> Checkpoint:
        """Return the state of the run.

        Raises:
            TrainingError: an array is not finite.
        """
        arrays, state = self.runner.read_arrays(), self.trainer.read_state()
        found = Checkpoint(self.runner.spec, self.recipe, arrays, state, self.best)
        if names := find_not_finite(found):
            raise TrainingError(
                f"the weights after step {self.step} are not finite: {listed(names[:5])}; "
                f"{self.folder.describe_last()}; {_REMEDY}"
            )
        return found

    def _final_arrays(self) -> dict[str, Array]:
        """Return the arrays of the model that is saved: the averages if the recipe has any."""
        return self.trainer.read_state().average or self.runner.read_arrays()

    def _write_record(self, record: Record) -> None:
        if self.processes.rank == 0:
            self.folder.log.append(record)


class Estimate:
    """A measurement of the first steps of a session, without the very first one, which may compile.

    Args:
        step: the step before the session.
        total: the last step.
    """

    def __init__(self, step: int, total: int) -> None:
        self.first, self.last = step + WARM_STEPS, step + WARM_STEPS + TIMED_STEPS
        self._began = 0.0
        if self.last > total:
            self.first = self.last = -1

    def is_due(self, step: int) -> bool:
        """Return whether a measurement begins or ends after a step."""
        return step in (self.first, self.last)

    def measure(self, step: int) -> float | None:
        """Begin the measurement, or return the seconds of a step at its end."""
        now = time.perf_counter()
        if step == self.last:
            return (now - self._began) / TIMED_STEPS
        self._began = now
        return None


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield items in order while a thread computes the next `depth`; its exceptions are raised here."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as pool:
        pending = deque(pool.submit(next, iterator, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(pool.submit(next, iterator, end))
            yield item  # type: ignore[misc]


def share_statistics(processes: ProcessGroup, runner: Runner, trainer: Trainer) -> None:
    """Copy the running statistics of the first process to all; each has seen only its share of the batches."""
    names = [p.name for p in runner.spec.parameters() if not p.trainable]
    if processes.size == 1 or not names:
        return
    runner.write_arrays(_arrays_of_first(processes, runner.read_arrays(), names))
    state = trainer.read_state()
    if state.average:
        shared = _arrays_of_first(processes, state.average, names)
        trainer.write_state(replace(state, average=state.average | shared))


def _arrays_of_first(processes: ProcessGroup, arrays: Mapping[str, Array], names: Sequence[str]) -> dict[str, Array]:
    """Return, in every process, the arrays of the first process; they are sent as one vector."""
    own = np.concatenate([arrays[name].ravel() for name in names])
    first = processes.gather(own)[: own.size]
    ends = np.cumsum([arrays[name].size for name in names])
    parts = np.split(first, ends[:-1])
    return {name: part.reshape(arrays[name].shape) for name, part in zip(names, parts, strict=True)}


def fusion_scalars(spec: Node) -> list[str]:
    """Return the names of all scalars whose softmax weights branches (equation 2 of the MAAM paper)."""
    merges = [path for path, node in spec.walk() if isinstance(node, Parallel) and node.merge == "softmax"]
    return [f"{path}.alpha" if path else "alpha" for path in merges]


def fusion_weights(names: Sequence[str], arrays: Mapping[str, Array]) -> dict[str, list[float]]:
    """Return the weight of each branch, by the name of the scalars (branches,) in `arrays`."""
    return {name: softmax(arrays[name].astype(np.float64), 0).tolist() for name in names}
