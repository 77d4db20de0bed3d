"""A preset as a timm model, with separate features, head and classifier and canonical parameter names."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maam.errors import DeploymentError, SpecError
from maam.spec import Dropout, Identity, Model, Node, Sequential, draw, head, input_rule, with_num_classes
from maam.spec.node import is_within, join_path, with_layer
from maam.timm.structure import analyze
from maam.torch.arrays import write_arrays
from maam.torch.modules import Container, check_input, instantiate

_Layer = tuple[nn.Module, Node]


class PresetModel(Container):
    """A classifier in timm's form, from (N, in_chans, H, W) to the logits (N, num_classes).

    It has the same layers and parameter names as the model that `maam.torch.build` returns.

    Args:
        spec: the spec of a classifier.
        num_classes: the length of the logits. 0 removes the last layer: the output is then the input of that layer.
        global_pool: "" with `num_classes=0` removes the head: the output is then the last map. None keeps the head.
        drop_rate: the probability of dropout before the last layer; the spec then contains this dropout.
        seed: the seed of the initial weights, which are bit-identical in every framework. None: the generator of
            PyTorch draws them.
        options: `device` and `dtype`.

    Attributes:
        whole: the spec that the model was built from. `spec` is the current one, for example without classes.
        structure: where the features end and the head begins.
        num_features: the channels of the output of `forward_features`.
        head_hidden_size: the length of the output of `forward_head(..., pre_logits=True)`.
        feature_info: the maps of `Structure.info`.
        global_pool: "avg", None for a head that flattens the map, or "" without a head.

    Raises:
        SpecError: an argument is invalid, or the spec is not a classifier.
    """

    joins_branches = False  # each branch is a feature map

    def __init__(
        self,
        spec: Model,
        *,
        num_classes: int,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        spec = _with_dropout(spec, drop_rate)
        super().__init__(spec, **options)
        self.whole, self.structure = spec, analyze(spec)
        self.rule = input_rule(spec)
        if seed is not None:
            write_arrays(self, draw(spec.parameters(), seed))
        self.num_classes, self.in_chans = spec.num_classes, spec.input_shape[0]
        self.num_features, self.head_hidden_size = self.structure.features[0], self.structure.hidden
        self.feature_info: list[dict[str, Any]] = [dict(info) for info in self.structure.info]
        self.global_pool = self.structure.pooling
        self.grad_checkpointing = False
        self._removed: dict[str, _Layer] = {}
        if num_classes != spec.num_classes or global_pool is not None:
            self.reset_classifier(num_classes, global_pool)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, num_classes), or without classes the output of `forward_head`."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the input of the head: the last map (N, num_features, H', W')."""
        if self.rule is not None:
            check_input(self, self.rule, x)
        for _, module in self._features():
            x = self._run(module, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Return the logits for the output of `forward_features`; with `pre_logits` (N, head_hidden_size)."""
        for path, module in self._steps()[len(self._features()) :]:
            if path != self.structure.head or not pre_logits:
                x = module(x)
        return x

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Return the output of `forward_features` and the maps of `feature_info`.

        Args:
            x: images (N, in_chans, H, W).
            indices: indices of `feature_info`; an integer n selects the last n maps, None all maps.
            norm: ignored; the maps are already normalized.
            stop_early: whether to skip the layers after the last selected map; requires `intermediates_only`.
            output_fmt: "NCHW", the only supported format.
            intermediates_only: whether to return only the maps.

        Raises:
            SpecError: the format is not "NCHW", or `stop_early` is true without `intermediates_only`.
        """
        if output_fmt != "NCHW" or (stop_early and not intermediates_only):
            raise SpecError(
                "forward_intermediates: expected output_fmt 'NCHW', and stop_early only with intermediates_only; got "
                f"{output_fmt!r}, stop_early={stop_early} and intermediates_only={intermediates_only}"
            )
        if self.rule is not None:
            check_input(self, self.rule, x)
        take, last = feature_take_indices(len(self.feature_info), indices)
        wanted = [self.feature_info[index]["module"] for index in take]
        found: list[Tensor] = []
        for path, module in self._features():
            if any(name.startswith(f"{path}.") for name in wanted):
                container = cast(Container, module)
                branches = [self._run(branch, x) for branch in container]
                names = [f"{path}.{name}" for name in container.names]
                found += [branch for name, branch in zip(names, branches, strict=True) if name in wanted]
                x = container._merge(branches, container._weights(x))
            else:
                x = self._run(module, x)
            if path in wanted:
                found.append(x)
            if stop_early and is_within(self.feature_info[last]["module"], [path]):
                break
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the layers after the last map of `indices` and the head, and return the indices as positive numbers.

        If a single map of one branch is left, the other branches are removed too; otherwise all are kept.

        Args:
            indices: indices of `feature_info`; an integer n selects the last n maps.
            prune_norm: ignored.
            prune_head: whether to remove the head even if no map is removed.
        """
        take, last = feature_take_indices(len(self.feature_info), indices)
        if prune_head or last < len(self.feature_info) - 1:
            name = self.feature_info[last]["module"]
            step = next(path for path, _ in self._features() if is_within(name, [path]))
            _truncate(self, step)
            taken = [self.feature_info[index]["module"] for index in take]
            if name != step and [other for other in taken if is_within(other, [step])] == [name]:
                _keep_branch(self, step, name.removeprefix(f"{step}."))
                self.structure = self.structure._replace(opened=self.structure.opened | {step})
            self.rule = input_rule(self.spec)
            self.num_classes, self.global_pool = 0, ""
            self.num_features = self.head_hidden_size = self.spec.output_shape(self.whole.input_shape)[0]
        return take

    def get_classifier(self) -> nn.Module:
        """Return the layer of the logits: a linear layer or a 1x1 convolution, or an identity without classes."""
        path, _, name = self.structure.head.rpartition(".")
        try:
            return self.get_submodule(path).get_submodule(name)
        except AttributeError:
            raise DeploymentError(
                f"{self.structure.head}: this layer was removed with the head; build the model again to use it"
            ) from None

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the last layer by a new one with `num_classes` logits; `spec` changes too.

        Args:
            num_classes: the length of the logits; 0 for no last layer.
            global_pool: "" removes the head and requires `num_classes=0`. The original pooling restores the head. None
                keeps the current setting; if the head was removed and there are classes again, it is restored.

        Raises:
            SpecError: an argument is invalid.
            DeploymentError: the head was removed by `prune_intermediate_layers`.
        """
        self.get_classifier()  # raises an error after pruning
        kept = self.structure.pooling if num_classes else self.global_pool
        pool = kept if global_pool is None else global_pool
        if pool not in ("", self.structure.pooling) or (pool == "" and num_classes != 0):
            known = " or ".join(repr(name) for name in (self.structure.pooling, "") if name is not None)
            raise SpecError(f"global_pool: expected {known}, and '' only with num_classes=0; got {pool!r}")
        path = self.structure.head
        layer: Node = Identity() if num_classes == 0 else with_num_classes(self.whole, num_classes).at(path)
        like = next(self.parameters())
        _restore(self, self._removed)
        _put(self, path, (instantiate(layer, device=like.device, dtype=like.dtype).train(self.training), layer))
        steps = [name for name, _ in self._steps()][len(self._features()) :]
        self._removed = _remove(self, steps) if pool == "" else {}
        self.num_classes, self.global_pool = num_classes, pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute layers in the backward pass, to save memory; running statistics are updated once."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Return the parameters by depth for timm's layer-wise learning rates: the stem, then each block."""
        stem = "|".join(_pattern(path) for path in self.structure.stem)
        blocks = [(f"^{_pattern(path)}", (index,)) for index, path in enumerate(self.structure.blocks)]
        return {"stem": f"^(?:{stem})", "blocks": blocks}

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training:
            if torch.compiler.is_compiling():  # the compiler recomputes without side effects
                return cast(Tensor, checkpoint(module, x, use_reentrant=False))
            contexts = functools.partial(_checkpoint_contexts, module)
            return cast(Tensor, checkpoint(module, x, use_reentrant=False, context_fn=contexts))
        return cast(Tensor, module(x))

    def _features(self) -> list[tuple[str, nn.Module]]:
        steps, ends = self._steps(), (self.structure.cut, self.structure.head)
        for index, (path, _) in enumerate(steps):  # torch.compile of PyTorch 2.8 refuses `next` with a default
            if path in ends:
                return steps[:index]
        return steps

    def _steps(self) -> list[tuple[str, nn.Module]]:
        """Return the current steps; fusion removes and changes some, but neither the pooling nor the last layer."""
        return _chain(self, "", self.structure.opened)


def _checkpoint_contexts(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Return the contexts of the forward pass and of the recomputation."""
    return contextlib.nullcontext(), _unchanged_buffers(module)


@contextlib.contextmanager
def _unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Let the layers write into copies of their buffers, such as running statistics, until the context is left."""
    owners = [(part._buffers, dict(part._buffers)) for part in module.modules() if part._buffers]
    for buffers, kept in owners:
        buffers.update({name: None if buffer is None else buffer.clone() for name, buffer in kept.items()})
    try:
        yield
    finally:
        for buffers, kept in owners:
            buffers.update(kept)


def _with_dropout(spec: Model, p: float | None) -> Model:
    """Return `spec` with dropout of probability `p` before the layer of the logits, or unchanged if `p` is 0.

    Raises:
        SpecError: `p` is not in [0, 1), or the model already has dropout there.
    """
    if not p:
        return spec
    path, _, name = head(spec).rpartition(".")
    above = spec.at(path)
    if any(isinstance(node, Dropout) for node in above.nodes.values()):
        raise SpecError(
            "drop_rate: the preset already has dropout there, through its option dropout; pass only one of the two"
        )
    try:
        layer = Dropout(p=p)
    except SpecError:
        raise SpecError(f"drop_rate: expected a number of at least 0 and below 1, got {p!r}") from None
    index = list(above.nodes).index(name)
    nodes = list(above.nodes.items())
    changed = above.with_nodes(dict([*nodes[:index], ("dropout", layer), *nodes[index:]]))
    return cast(Model, with_layer(spec, path, changed))


def _chain(container: Any, path: str, opened: frozenset[str]) -> list[tuple[str, nn.Module]]:
    """Return (canonical path, module) of the layers in order of execution; `opened` containers yield their layers."""
    found: list[tuple[str, nn.Module]] = []
    for name in container.names:
        below = join_path(path, name)
        module = container._modules[name]
        found += _chain(module, below, opened) if below in opened else [(below, module)]
    return found


def _truncate(container: Any, path: str) -> None:
    """Remove the layers after `path`, from the specs too."""
    name, _, rest = path.partition(".")
    container.keep(container.names[: container.names.index(name) + 1])
    if rest:
        _truncate(container._modules[name], rest)


def _keep_branch(model: Container, path: str, name: str) -> None:
    """Replace the parallel branches at `path` by a chain that has only the branch `name`."""
    branches: Any = model.get_submodule(path)
    node = Sequential(children={name: branches.spec.nodes[name]})
    chain = cast(Container, instantiate(node, device="meta")).train(branches.training)
    chain.put(name, branches._modules[name], node.nodes[name])
    _put(model, path, (chain, node))


def _put(model: Container, path: str, layer: _Layer) -> _Layer:
    """Put a module and its node at `path` and return the old ones; the specs above change too."""
    above, _, name = path.rpartition(".")
    parent: Any = model.get_submodule(above)
    old = parent._modules[name], parent.spec.nodes[name]
    parent.put(name, *layer)
    return old


def _remove(model: Container, paths: Sequence[str]) -> dict[str, _Layer]:
    """Replace the layers at `paths`, the last ones of the chain, by identities; return the layers for `_restore`."""
    return {path: _put(model, path, (instantiate(Identity()), Identity())) for path in reversed(paths)}


def _restore(model: Container, layers: dict[str, _Layer]) -> None:
    """Undo `_remove`, with the device, the dtype and the mode that the model has now."""
    like = next(model.parameters())
    for path, (module, node) in reversed(layers.items()):
        _put(model, path, (module.to(device=like.device, dtype=like.dtype).train(model.training), node))


def _pattern(path: str) -> str:
    """Return a regular expression for the names below `path`."""
    return path.replace(".", r"\.") + r"\."
