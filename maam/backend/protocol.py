"""The contract between maam and a framework: the protocols that a backend implements, with NumPy arrays in and out.

`Backend` is the minimum: it builds and runs models. Training, porting, conversion, export and the gradient reference
each have a separate protocol, and a capability that states whether a backend implements it. Code that uses backends
chooses by capability, never by a backend's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from maam.backend.optimizer import Optimizer
from maam.spec import Node

if TYPE_CHECKING:
    from maam.backend.adapter import ModelAdapter
    from maam.data import ImageBatches
    from maam.weights.sets import Selection

Array = np.ndarray[Any, Any]
Predict = Callable[[Array], Array]
"""A model as a function: float32 (N, C, H, W) or (N, features) to its outputs, float32."""


class Capability(str, Enum):
    """A capability of a backend, or of one of its modes, beyond the inference of a whole model.

    Example:
        >>> from maam.backend import Capability, find_entry
        >>> Capability.EXPORT in find_entry("torch").capabilities
        True
        >>> Capability.COMPILED in find_entry("mindspore").modes["mindspore graph"]
        True
    """

    TRAINING = "training"
    """`TrainingBackend`; its runners have `gradients` and `trainer`."""
    PORTING = "porting"
    """`PortingBackend`: adapts models that maam did not build."""
    CHECKPOINTS = "checkpoints"
    """`CheckpointBackend`: reads and writes the framework's own checkpoint files."""
    EXPORT = "export"
    """`ExportBackend`: writes formats of inference engines."""
    GRADIENT_REFERENCE = "gradient reference"
    """`GradientReferenceBackend`: computes in float64 and finds kinks."""
    COMPILED = "compiled"
    """Of a mode: the whole model is compiled into one program."""
    SINGLE_LAYERS = "single layers"
    """Of a mode: `Runner.forward_layer` runs a layer as the whole model would."""
    COSTLY_LAYERS = "costly layers"
    """Of a mode: running a single layer compiles it, which takes about one second per layer."""
    SERIAL_SUMS = "serial sums"
    """Of a mode: sums over a batch are not pairwise; their rounding errors are 2 to 4 times those of pairwise sums."""
    LONG_SERIAL_SUMS = "long serial sums"
    """Of a mode: sums over a batch add up long runs of terms; the rounding errors are up to 7 times as large."""


class Gradients(NamedTuple):
    """Gradients with respect to the input and to each trainable parameter.

    Attributes:
        input: the shape of the input.
        parameters: the gradients by canonical name, each with the shape of its parameter.
    """

    input: Array
    parameters: dict[str, Array]


class LossScale(NamedTuple):
    """The state of a dynamic loss scale.

    Attributes:
        scale: the factor on the loss.
        growth_tracker: steps since the scale last changed or the gradients last overflowed.
    """

    scale: float
    growth_tracker: int


@dataclass(frozen=True)
class OptimizerState:
    """The state of an optimizer, complete enough to resume a run bit for bit.

    Attributes:
        step: the number of updates so far, skipped ones included.
        moments: for each kind of moment (`Optimizer.moments`) one array per parameter, by canonical name.
        average: the moving averages of parameters and running statistics by canonical name; empty without an average.
        loss_scale: the dynamic loss scale; None without loss scaling.
        skipped: the number of updates that loss scaling skipped.

    Example:
        >>> import numpy as np
        >>> from maam.training import OptimizerState
        >>> weight = np.zeros((2, 3), np.float32)
        >>> state = OptimizerState(step=10, moments={"momentum_buffer": {"fc.weight": weight}})
        >>> state.step, state.average, state.loss_scale
        (10, {}, None)
    """

    step: int
    moments: dict[str, dict[str, Array]]
    average: dict[str, Array] = field(default_factory=dict)
    loss_scale: LossScale | None = None
    skipped: int = 0


@dataclass(frozen=True)
class Objective:
    """The settings of a training step: its loss, the processing of its gradients, and its precision.

    Attributes:
        label_smoothing: the share of the target that is spread evenly over all classes.
        clip_norm: the largest joint norm of all gradients; None for no limit.
        average: whether to keep a moving average of the weights.
        lookahead: whether each update of the average also copies it back into the model (look-ahead averaging).
        freeze: shell wildcards of parameters and running statistics that do not change; see
            `maam.backend.optimizer.find_frozen`.
        precision: "fp32", "bf16", or "fp16" with a dynamic loss scale.

    Example:
        >>> from maam.training import Objective
        >>> Objective(label_smoothing=0.1).precision
        'fp32'
    """

    label_smoothing: float = 0.0
    clip_norm: float | None = None
    average: bool = False
    precision: str = "fp32"
    lookahead: bool = False
    freeze: tuple[str, ...] = ()


class Kink(NamedTuple):
    """A value near a kink: a point where ReLU or max pooling is not differentiable.

    Attributes:
        layer: the canonical name of the activation or pooling layer.
        place: the index of the value in the layer's flattened input (N, ...).
        shift: the number that moves the value across the kink when it is added.
        distance: the distance from the kink, in units of the layer's rounding error.
    """

    layer: str
    place: int
    shift: float
    distance: float


class NearKinks(NamedTuple):
    """The values of a batch that rounding may have moved across a kink.

    Attributes:
        kinks: the values, sorted by distance.
        values: the number of values in layers with kinks.
        layers: the number of layers with kinks.
    """

    kinks: list[Kink]
    values: int
    layers: int


class Trainer(Protocol):
    """A model with an optimizer.

    Example:
        >>> import numpy as np
        >>> from maam.backend import load_backend
        >>> from maam.training import Optimizer
        >>> backend = load_backend("torch")
        >>> runner = backend.make_runner(backend.build("maam_digits", seed=0))
        >>> trainer = runner.trainer(Optimizer(lr=0.01))
        >>> loss = trainer.step(np.zeros((2, 1, 8, 8), np.float32), np.array([3, 7], np.int32), lr=0.01)
        >>> trainer.read_state().step
        1
    """

    optimizer: Optimizer

    def prepare(self, images: Array, labels: Array) -> Any:
        """Return a batch on the device, without waiting for the copy.

        Args:
            images: float32 (N, C, H, W).
            labels: int32 (N,), or the share of each class, float32 (N, classes).
        """

    def update(self, batch: Any, lr: float, decay: float | None = 0.0) -> Any:
        """Take one optimizer step on the mean cross entropy, in train mode.

        Args:
            batch: a prepared batch.
            lr: the learning rate of this step.
            decay: the decay of the moving average after this step; None leaves the average as it is.

        Returns:
            (loss, accuracy) before the update, on the device.
        """

    def seed(self, value: int) -> None:
        """Seed the generator of dropout masks; do nothing if the framework cannot be seeded between steps."""

    def fetch(self, found: Sequence[Any]) -> Array:
        """Wait for the results of updates and return them, float64 (len(found), 2), averaged over all processes."""

    def step(self, x: Array, labels: Array, lr: float) -> float:
        """Update the model from x (N, C, H, W) and labels int32 (N,); return the loss before the update."""

    def predict(self, x: Array) -> Array:
        """Return logits (N, classes) in inference mode, float32, computed in the precision of training.

        The averaged weights are used if there is a moving average.
        """

    def read_state(self) -> OptimizerState:
        """Return copies of the optimizer's state."""

    def write_state(self, state: OptimizerState) -> None:
        """Restore the optimizer's state."""


class Runner(Protocol):
    """A model in one mode of its framework.

    Attributes:
        name: the name of the mode in reports, such as "torch compiled".
        capabilities: what this mode can do.
        model: the framework's own model.

    Example:
        >>> import numpy as np
        >>> from maam.backend import load_backend
        >>> backend = load_backend("reference")
        >>> runner = backend.make_runner(backend.build("maam_digits", seed=0))
        >>> runner.forward(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 10)
    """

    name: str
    capabilities: frozenset[Capability]
    model: Any

    @property
    def spec(self) -> Node:
        """The model's spec."""

    def read_arrays(self) -> dict[str, Array]:
        """Return copies of all parameters and running statistics by canonical name."""

    def write_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Copy arrays into the model, cast to its dtypes."""

    def preserve_state(self) -> AbstractContextManager[None]:
        """Restore the model's arrays and the mode of each layer on leaving the context."""

    def forward(self, x: Array, training: bool = False) -> Array:
        """Return the output for x (N, C, H, W); train mode updates the running statistics."""

    def forward_layer(self, path: str, x: Array, training: bool = False) -> Array:
        """Return the output of the layer at a canonical path ("" for the whole model) for its input x."""

    def gradients(self, x: Array, cotangent: Array) -> Gradients:
        """Return the gradients of sum(output * cotangent) in train mode.

        Raises:
            MaamError: the backend cannot train.
        """

    def trainer(self, optimizer: Optimizer, objective: Objective = ...) -> Trainer:
        """Return a trainer of this model with a fresh optimizer.

        Raises:
            MaamError: the backend cannot train.
        """

    def clone_with(self, spec: Node, arrays: Mapping[str, Array], dtype: str = "float32") -> Runner:
        """Build a model of `spec` with `arrays`, cast to `dtype`, and return its runner in the same mode."""


class ProcessGroup(Protocol):
    """The group of processes of a distributed training run, in one of its processes.

    Attributes:
        rank: the index of this process.
        size: the number of processes.
    """

    rank: int
    size: int

    def barrier(self) -> None:
        """Wait until all processes have arrived."""

    def gather(self, array: Array) -> Array:
        """Concatenate the arrays (N, ...) of all processes along the first axis; N may differ."""


class SingleProcess:
    """The process group of a run with one process."""

    rank, size = 0, 1

    def barrier(self) -> None:
        """Return immediately."""

    def gather(self, array: Array) -> Array:
        """Return the array."""
        return array


class Backend(Protocol):
    """The minimum that a framework provides: it builds models from a spec and runs them.

    Example:
        >>> import numpy as np
        >>> from maam.backend import load_backend
        >>> backend = load_backend("reference")
        >>> runner = backend.make_runner(backend.build("maam_digits", seed=0))
        >>> runner.forward(np.zeros((2, 1, 8, 8), np.float32)).shape
        (2, 10)
    """

    name: str

    def build(self, spec: Node | str, *, seed: int | None = None) -> Any:
        """Return the framework's model of a spec or preset.

        Args:
            spec: a spec, or the name of a preset.
            seed: the seed of all parameters, which are bit-identical in every backend. None: the framework's
                generator draws them.
        """

    def load(self, path: str | Path) -> Any:
        """Return the model that a weights file describes."""

    def save_weights(self, model: Any, path: str | Path) -> None:
        """Write a model's spec and arrays to a weights file."""

    def make_runner(self, model: Any, mode: str | None = None) -> Runner:
        """Return a runner of a model.

        Args:
            model: a model that this backend built or loaded.
            mode: one of the modes that the backend is registered with; None uses the first one.
        """


class TrainingBackend(Backend, Protocol):
    """A backend that trains (`Capability.TRAINING`).

    Example:
        >>> from maam.backend.registry import load_training_backend
        >>> backend = load_training_backend("torch")
        >>> backend.select_precision(backend.select_device("cpu"), "fp32")
        'fp32'
    """

    def list_devices(self) -> dict[str, str]:
        """Return the available devices ("cpu", "cuda", "ascend"), the best one first, each with its description."""

    def select_device(self, name: str | None = None) -> str:
        """Select a device in the framework and return its name; None selects the best one.

        Raises:
            DeviceError: the device is not available.
        """

    def select_precision(self, device: str, name: str = "auto") -> str:
        """Return the precision of that name, or the fastest suitable one for "auto".

        Raises:
            DeviceError: the device does not support it.
        """

    def make_training_runner(self, spec: Node, *, seed: int | None, device: str) -> Runner:
        """Return a runner of a new model on a selected device, in the mode that trains fastest."""

    def join_processes(self, device: str) -> ProcessGroup:
        """Join the processes that the framework's launcher started; return `SingleProcess` without a launcher."""

    def leave_processes(self) -> None:
        """Leave the process group."""

    def image_batches(self) -> type[ImageBatches]:
        """Return the class that decodes and batches folders of images with the framework's data pipeline."""


class PortingBackend(Backend, Protocol):
    """A backend that adapts models that maam did not build (`Capability.PORTING`)."""

    def adapt(self, model: Any) -> ModelAdapter:
        """Return an adapter of a model that maam did not build.

        Raises:
            PortingError: `model` is not a model of this framework.
        """


class CheckpointBackend(Backend, Protocol):
    """A backend that reads and writes its framework's checkpoint files (`Capability.CHECKPOINTS`)."""

    def read_checkpoint(
        self, path: Path, spec: Node | None = None, selection: Selection | None = None
    ) -> tuple[dict[str, Array], Node | None]:
        """Return the arrays of a file by canonical name, and the spec in the file, or None if it contains none.

        Args:
            path: the file.
            spec: needed by formats whose names follow from the roles of parameters.
            selection: which set of weights to take, and which prefix its names lose; see `maam.weights.sets`.

        Raises:
            WeightsError: the file is broken, or contains anything other than arrays of a supported dtype, or has no
                set of weights that `selection` names.
        """

    def write_checkpoint(self, path: Path, spec: Node, arrays: Mapping[str, Array]) -> None:
        """Write all arrays of a spec; an existing file stays unchanged if writing fails.

        Raises:
            OSError: the file cannot be written.
            WeightsError: the format does not support an array.
        """


class ExportBackend(Backend, Protocol):
    """A backend that writes formats of inference engines (`Capability.EXPORT`)."""

    def write_exported(
        self, kind: str, path: Path, spec: Node, arrays: Mapping[str, Array], shape: Any, metadata: dict[str, str]
    ) -> None:
        """Write a model with a free batch axis.

        Args:
            kind: the name of a format that the backend is registered with.
            path: the file to write.
            spec: the architecture.
            arrays: float32, by canonical name.
            shape: the shape of one input, without the batch; height and width None if they are free.
            metadata: texts to store in the file, or in a JSON file beside it.
        """

    def open_exported(self, kind: str, path: Path, trusted: bool = False) -> tuple[Predict, dict[str, str]]:
        """Open an exported file; return its function of NumPy arrays and its metadata.

        Args:
            kind: the name of a format.
            path: the file.
            trusted: whether the file may run code. Without it, content that can do so is refused.
        """


class GradientReferenceBackend(TrainingBackend, Protocol):
    """A backend whose float64 gradients others are compared with (`Capability.GRADIENT_REFERENCE`)."""

    def near_kinks(self, exact: Any, rounded: Any, x: Array) -> NearKinks:
        """Find values that rounding may have moved across a kink.

        Args:
            exact: the model in float64.
            rounded: the same model in float32.
            x: a batch (N, C, H, W).
        """

    def across(self, model: Any, kink: Kink) -> AbstractContextManager[None]:
        """Move one value across its kink until the context is left."""
