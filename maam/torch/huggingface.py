"""PyTorch models of maam on the Hugging Face Hub, or in a folder of the same form."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maam._messages import one_line, suggestion
from maam.errors import ArgumentError, MaamError, WeightsError, require

require("huggingface_hub", "huggingface")

import torch  # noqa: E402
from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from maam.spec import Model, Node  # noqa: E402
from maam.torch import build, load, save_weights  # noqa: E402
from maam.torch.arrays import Wrapper  # noqa: E402
from maam.weights.exchange import spec_of  # noqa: E402
from maam.weights.file import check_path  # noqa: E402

FILE = "model.safetensors"
CARD = """---
{{ card_data }}
---

# {{ name }}

{{ size }}. The weights file contains the architecture. PyTorch, MindSpore
and NumPy can load it.

```python
from maam.torch.huggingface import HubModel

model = HubModel.from_pretrained("{{ model_id }}")  # a repository or a folder; in eval mode
```

In MindSpore: `maam.mindspore.load("{{ file }}")`. The input is float32 {{ shape }}, with pixels in [0, 1] unless the
author describes another preprocessing below.

{{ description }}
"""


class HubModel(Wrapper, ModelHubMixin):
    """A model of maam with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Args:
        model: a model that maam has built or loaded, or the name of a preset.

    Attributes:
        model: the model. Calling the wrapper calls it: images (N, C, H, W) to its output.

    Raises:
        WeightsError: the model was not built by maam.
        PresetError: no preset has that name.

    Example:
        >>> import torch
        >>> from maam.torch.huggingface import HubModel
        >>> HubModel("maam_digits").save_pretrained("my_digits")
        >>> model = HubModel.from_pretrained("my_digits")
        >>> model(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, model: nn.Module | str) -> None:
        super().__init__()
        self.model = build(model) if isinstance(model, str) else model
        self._hub_mixin_config = self._config()

    @property
    def spec(self) -> Node:
        """The spec of the model."""
        return spec_of(self.model)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the model."""
        return self.model(x)

    def generate_model_card(self, *, description: str = "", model_id: str = "") -> ModelCard:
        """Return the README of the repository, made from the spec and ending with `description`."""
        spec = self.spec
        macs, shape = "", "(N, C, H, W)"
        if isinstance(spec, Model):
            macs, shape = f", {spec.macs(spec.input_shape):,} multiply-accumulates", f"(N, {_listed(spec.input_shape)})"
        data = ModelCardData(
            library_name="maam", license="apache-2.0", pipeline_tag="image-classification", tags=["maam", "pytorch"]
        )
        return ModelCard.from_template(
            data,
            template_str=CARD,
            name=spec.name if isinstance(spec, Model) else spec.kind,
            size=f"{spec.num_parameters:,} parameters{macs}",
            shape=shape,
            model_id=model_id or "REPOSITORY",
            file=FILE,
            description=description,
        )

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> Any:
        """Write the weights file, config.json and README to a folder.

        Args:
            save_directory: the folder.
            options: options of `ModelHubMixin.save_pretrained`.

        Raises:
            WeightsError: see `maam.torch.save_weights`.
            ArgumentError: an option is unknown, or has no effect without `push_to_hub=True`.
        """
        _check_options(options)
        self._hub_mixin_config = self._config()  # the model may have been fused since it was wrapped
        return super().save_pretrained(os.fspath(save_directory), **options)

    def _config(self) -> dict[str, Any]:
        return {"spec": json.loads(spec_of(self.model).to_json())}

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self.model, save_directory / FILE)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        model_id: str | os.PathLike[str],
        *,
        dtype: torch.dtype | None = None,
        num_classes: int | None = None,
        seed: int = 0,
        device: torch.device | str | None = None,
        spec: Node | str | None = None,
        key: str | None = None,
        prefix: str | None = None,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
    ) -> HubModel:
        """Load a model in eval mode from a folder or from a repository of the Hub.

        Args:
            model_id: a folder, or the name of a repository such as "user/model".
            dtype: see `maam.torch.load`.
            num_classes: see `maam.torch.load`; another number than that of the file replaces the last layer.
            seed: see `maam.torch.load`.
            device: see `maam.torch.load`.
            spec: see `maam.torch.load`; for a repository that maam did not write.
            key: see `maam.torch.load`.
            prefix: see `maam.torch.load`.
            force_download: whether to download files that are in the cache.
            token: the token for the Hub.
            cache_dir: the folder of the cache.
            local_files_only: whether to use only files in the cache.
            revision: a branch, a tag or a commit of the repository.

        Raises:
            WeightsError: neither the folder nor the repository can be read, or an error of `maam.torch.load`.
            SpecError: see `maam.torch.load`.
        """
        check_path(model_id)
        loading: dict[str, Any] = {"dtype": dtype, "num_classes": num_classes, "seed": seed, "device": device}
        loading |= {"spec": spec, "key": key, "prefix": prefix}
        try:
            return super().from_pretrained(
                os.fspath(model_id),
                force_download=force_download,
                token=token,
                cache_dir=None if cache_dir is None else os.fspath(cache_dir),
                local_files_only=local_files_only,
                revision=revision,
                loading=loading,
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
            reason = one_line(error, 200)
            raise WeightsError(
                f"{model_id}: expected a folder with {FILE} or a repository of the Hub, which cannot be read: {reason}"
            ) from None
        except MaamError:
            raise
        except (AttributeError, RecursionError, ValueError) as error:  # huggingface_hub reads config.json unchecked
            reason = one_line(error, 200)
            raise WeightsError(f"{model_id}: cannot be loaded; check its config.json: {reason}") from None

    @classmethod
    def _from_pretrained(  # type: ignore[override]
        cls, *, model_id: str, loading: dict[str, Any], **download: Any
    ) -> HubModel:
        folder = os.path.isdir(model_id)
        path = os.path.join(model_id, FILE) if folder else hf_hub_download(model_id, FILE, **download)
        return cls(load(path, **loading)).eval()


def _check_options(options: Mapping[str, Any]) -> None:
    """Raise `ArgumentError` for options that `ModelHubMixin.save_pretrained` would ignore."""
    own = inspect.signature(ModelHubMixin.save_pretrained).parameters
    if given := [name for name in options if name not in own]:
        push = inspect.signature(ModelHubMixin.push_to_hub).parameters
        known = [name for name in (*own, *push) if name not in ("self", "save_directory", "push_to_hub_kwargs")]
        if unknown := [name for name in given if name not in push]:
            hint = suggestion(unknown[0], known, f"its options: {', '.join(known)}")
            raise ArgumentError(f"save_pretrained: no option {unknown[0]!r}; {hint}")
        if not options.get("push_to_hub"):
            raise ArgumentError(f"save_pretrained: {given[0]} has no effect without push_to_hub=True")


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
