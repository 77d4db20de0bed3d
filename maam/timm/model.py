"""A preset as users of timm know models: features, head and classifier apart, under canonical parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from maam.errors import DeploymentError, SpecError
from maam.spec import Dropout, Identity, Model, Node, draw, head, input_rule, with_num_classes
from maam.timm.structure import dissect
from maam.torch.arrays import write_arrays
from maam.torch.modules import Container, check_input, instantiate


def chain(container: Any, path: str, opened: frozenset[str]) -> list[tuple[str, nn.Module]]:
    """(canonical path, module) of a container's layers in running order, with those of `opened` ones in their place."""
    found: list[tuple[str, nn.Module]] = []
    for name in container.names:
        below = f"{path}.{name}" if path else name
        module = container._modules[name]
        found += chain(module, below, opened) if below in opened else [(below, module)]
    return found


def truncate(container: Any, path: str) -> None:
    """Take away what comes after the layer at `path`; the specs follow."""
    name, _, rest = path.partition(".")
    container.keep(container.names[: container.names.index(name) + 1])
    if rest:
        truncate(container._modules[name], rest)


def pattern(path: str) -> str:
    """A regular expression for the beginning of the names below a path."""
    return path.replace(".", r"\.") + r"\."


Layer = tuple[nn.Module, Node]


def with_dropout(spec: Model, p: float | None) -> Model:
    """`spec` with dropout of probability `p` in front of the layer that gives the logits; itself where `p` is 0.

    Raises:
        SpecError: `p` is no probability below 1, or the model has dropout there already.
    """
    if not p:
        return spec
    path, _, name = head(spec).rpartition(".")
    above = spec.at(path)
    if any(isinstance(node, Dropout) for node in above.nodes.values()):
        raise SpecError("drop_rate: the preset has dropout there already, by an option of its own; give one of the two")
    try:
        layer = Dropout(p=p)
    except SpecError:
        raise SpecError(f"drop_rate: expected a number from 0 to below 1, got {p!r}") from None
    index = list(above.nodes).index(name)
    nodes = list(above.nodes.items())
    return cast(
        Model, _replaced(spec, path, above.with_nodes(dict([*nodes[:index], ("dropout", layer), *nodes[index:]])))
    )


def put(model: Container, path: str, layer: Layer) -> Layer:
    """Put a module and its node at a path; returns what stood there. The specs above follow."""
    above, _, name = path.rpartition(".")
    parent: Any = model.get_submodule(above)
    old = parent._modules[name], parent.spec.nodes[name]
    parent.put(name, *layer)
    return old


def take_away(model: Container, paths: Sequence[str]) -> dict[str, Layer]:
    """Put identities at `paths`, which end the chain; returns what `put_back` takes."""
    return {path: put(model, path, (instantiate(Identity()), Identity())) for path in reversed(paths)}


def put_back(model: Container, layers: dict[str, Layer]) -> None:
    """Undo `take_away`, on the model's device, in its dtype and mode."""
    like = next(model.parameters())
    for path, (module, node) in reversed(layers.items()):
        put(model, path, (module.to(device=like.device, dtype=like.dtype).train(model.training), node))


def _replaced(node: Node, path: str, layer: Node) -> Node:
    if not path:
        return layer
    name, _, rest = path.partition(".")
    return node.with_nodes({**node.nodes, name: _replaced(node.nodes[name], rest, layer)})


class PresetModel(Container):
    """A classifier: (N, in_chans, H, W) to the logits (N, num_classes), as `maam.torch.build` makes it of the spec.

    Args:
        spec: the classifier.
        num_classes: length of the logits; 0 for none: the result is then what the last layer would take.
        global_pool: "" with `num_classes=0` for the last map itself; None for the spec's own head.
        drop_rate: probability of dropout in front of the last layer, which is then part of the spec.
        seed: draws the initial weights, bit-identical in every framework; None: PyTorch's generator does.
        options: `device` and `dtype`.

    Attributes:
        whole: the spec that it was made of; `spec` is what it now is, without classes for example.
        anatomy: where its features end and its head begins.
        num_features: channels of what `forward_features` gives.
        head_hidden_size: length of what `forward_head(..., pre_logits=True)` gives.
        feature_info: the last map at each stride; empty for a network without maps.
        global_pool: "avg", None for a head that flattens the map, or "".

    Raises:
        SpecError: an argument is invalid, or the spec is no classifier.
    """

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
        spec = with_dropout(spec, drop_rate)
        super().__init__(spec, **options)
        self.whole, self.anatomy = spec, dissect(spec)
        self.rule = input_rule(spec)
        if seed is not None:
            write_arrays(self, draw(spec.parameters(), seed))
        self.num_classes, self.in_chans = spec.num_classes, spec.input_shape[0]
        self.num_features, self.head_hidden_size = self.anatomy.features[0], self.anatomy.hidden
        self.feature_info: list[dict[str, Any]] = [dict(info) for info in self.anatomy.info]
        self.global_pool = self.anatomy.pooling
        self.grad_checkpointing = False
        self._aside: dict[str, Layer] = {}
        if num_classes != spec.num_classes or global_pool is not None:
            self.reset_classifier(num_classes, global_pool)

    def forward(self, x: Tensor) -> Tensor:
        """The logits (N, num_classes); without classes what `forward_head` gives."""
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """What the head takes: the last map (N, num_features, H', W'), or a vector where the network has no map."""
        if self.rule is not None:
            check_input(self, self.rule, x)
        for _, module in self._features():
            x = self._run(module, x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """From what `forward_features` gives to the logits, or with `pre_logits` to (N, head_hidden_size)."""
        for path, module in self._steps()[len(self._features()) :]:
            if path != self.anatomy.head or not pre_logits:
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
        """The maps of `feature_info`, and in front of them what `forward_features` gives.

        Args:
            x: images (N, in_chans, H, W).
            indices: into `feature_info`; an integer n for the last n, None for all.
            norm: without effect: maps are normalised where they are made.
            stop_early: run nothing behind the last map that is asked for; needs `intermediates_only`.
            output_fmt: "NCHW", there is no other.
            intermediates_only: leave the first result out.

        Raises:
            SpecError: the format is another, or `stop_early` stands without `intermediates_only`.
        """
        if output_fmt != "NCHW" or (stop_early and not intermediates_only):
            raise SpecError("forward_intermediates: expected output_fmt 'NCHW', and intermediates_only with stop_early")
        if self.rule is not None:
            check_input(self, self.rule, x)
        take, last = feature_take_indices(len(self.feature_info), indices)
        wanted = [self.feature_info[index]["module"] for index in take]
        found: list[Tensor] = []
        for path, module in self._features():
            x = self._run(module, x)
            if path in wanted:
                found.append(x)
            if stop_early and path == self.feature_info[last]["module"]:
                break
        return found if intermediates_only else (x, found)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Take away the layers behind the last map of `indices`, and the head; returns the indices as positive ones.

        `prune_norm` is without effect; the head stays where `prune_head` is false and no map goes.
        """
        take, last = feature_take_indices(len(self.feature_info), indices)
        if prune_head or last < len(self.feature_info) - 1:
            truncate(self, self.feature_info[last]["module"])
            self.rule = input_rule(self.spec)
            self.num_classes, self.global_pool = 0, ""
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        return take

    def get_classifier(self) -> nn.Module:
        """The layer that gives the logits: a linear one, or a 1x1 convolution; an identity without classes."""
        path, _, name = self.anatomy.head.rpartition(".")
        try:
            return self.get_submodule(path).get_submodule(name)
        except AttributeError:
            raise DeploymentError(f"there is no layer {self.anatomy.head} any more: the head was taken away") from None

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last layer of `num_classes` logits; 0 for none. `spec` follows.

        Args:
            num_classes: length of the logits.
            global_pool: "" for no head at all, which needs `num_classes` 0: its layers are taken away and come back
                with the pooling that the network was made with; None: as it is.

        Raises:
            SpecError: an argument is invalid.
            DeploymentError: the head is no longer there: layers behind a map were pruned.
        """
        self.get_classifier()  # refuses where there is none any more
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in ("", self.anatomy.pooling) or (pool == "" and num_classes != 0):
            known = " or ".join(repr(name) for name in (self.anatomy.pooling, "") if name is not None)
            raise SpecError(f"global_pool: expected {known}, and '' with num_classes 0 alone; got {pool!r}")
        path = self.anatomy.head
        layer: Node = Identity() if num_classes == 0 else with_num_classes(self.whole, num_classes).at(path)
        like = next(self.parameters())
        put_back(self, self._aside)
        put(self, path, (instantiate(layer, device=like.device, dtype=like.dtype).train(self.training), layer))
        steps = [name for name, _ in self._steps()][len(self._features()) :]
        self._aside = take_away(self, steps) if pool == "" else {}
        self.num_classes, self.global_pool = num_classes, pool

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute layers again in the backward pass, where running statistics move twice, as in timm's own models."""
        self.grad_checkpointing = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameters by depth, for timm's layer-wise learning rates: the stem, then one group for each step."""
        stem = "|".join(pattern(path) for path in self.anatomy.stem)
        blocks = [(f"^{pattern(path)}", (index,)) for index, path in enumerate(self.anatomy.blocks)]
        return {"stem": f"^(?:{stem})", "blocks": blocks}

    def _run(self, module: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training:
            return cast(Tensor, checkpoint(module, x, use_reentrant=False))
        return cast(Tensor, module(x))

    def _features(self) -> list[tuple[str, nn.Module]]:
        steps, ends = self._steps(), (self.anatomy.cut, self.anatomy.head)
        return steps[: next((i for i, (path, _) in enumerate(steps) if path in ends), len(steps))]

    def _steps(self) -> list[tuple[str, nn.Module]]:
        """The steps as they now are: fusion takes some away and changes others, but not pooling nor the last layer."""
        return chain(self, "", self.anatomy.opened)
