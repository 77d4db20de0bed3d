"""What a classifier makes of a data set, and the figures that describe it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from maam.errors import DataError, require

Array = np.ndarray[Any, Any]
Track = Callable[[Iterable[Any], str, int], Iterable[Any]]
"""What shows how far a loop over some items is, given a name for it and their number; it yields the items."""


def untracked(items: Iterable[Any], name: str, count: int) -> Iterable[Any]:
    """Show nothing."""
    return items


@dataclass(frozen=True)
class Evaluation:
    """Logits float32 (N, classes) for labels int32 (N,)."""

    logits: Array
    labels: Array

    @property
    def predictions(self) -> Array:
        """The class of the largest logit, int64 (N,)."""
        return np.asarray(self.logits.argmax(1))

    @property
    def accuracy(self) -> float:
        """The share of right predictions, 0 to 1."""
        return float((self.predictions == self.labels).mean())

    def top(self, count: int) -> float:
        """The share of images whose label is among the `count` largest logits; of equal ones the first count."""
        labels = self.labels[:, None].astype(np.int64)
        own = np.take_along_axis(self.logits, labels, 1)
        before = ~(self.logits <= own) | ((self.logits == own) & (np.arange(self.logits.shape[1]) < labels))
        return float((before.sum(1) < count).mean())

    @property
    def loss(self) -> float:
        """Mean cross entropy without label smoothing, in float64."""
        logits = self.logits.astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        own = logits[np.arange(len(self.labels)), self.labels]
        return float((np.log(np.exp(logits).sum(1)) - own).mean())

    def macro(self) -> dict[str, float]:
        """Precision, recall and F1, each the mean over classes, by scikit-learn.

        Raises:
            MissingFrameworkError: scikit-learn is not installed.
        """
        require("sklearn", "train")
        from sklearn.metrics import precision_recall_fscore_support

        found = precision_recall_fscore_support(self.labels, self.predictions, average="macro", zero_division=0)
        return dict(zip(("precision", "recall", "f1"), map(float, found[:3]), strict=True))


def evaluate(predict: Callable[[Array], Array], batches: Iterable[tuple[Array, Array]]) -> Evaluation:
    """Run `predict` (images (B, C, H, W) to logits (B, classes)) over batches of images and labels (B,).

    Raises:
        DataError: there is no batch.
    """
    found = [(np.asarray(predict(images)), labels) for images, labels in batches]
    if not found:
        raise DataError("there is no image to evaluate on")
    logits, labels = zip(*found, strict=True)
    return Evaluation(np.concatenate(logits), np.concatenate(labels))
