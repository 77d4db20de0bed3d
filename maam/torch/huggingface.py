"""PyTorch models of maam on the Hugging Face Hub, or in a folder of the same form."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from maam.errors import WeightsError, require

require("huggingface_hub", "huggingface")

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, hf_hub_download  # noqa: E402
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from maam.spec import Model, Node  # noqa: E402
from maam.torch import build, load, save_weights  # noqa: E402
from maam.torch.arrays import Wrapper  # noqa: E402
from maam.weights.exchange import spec_of  # noqa: E402

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

    def generate_model_card(self, *args: Any, description: str = "", model_id: str = "", **kwargs: Any) -> ModelCard:
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
        """
        self._hub_mixin_config = self._config()  # the model may have been fused since it was wrapped
        return super().save_pretrained(os.fspath(save_directory), **options)

    def _config(self) -> dict[str, Any]:
        return {"spec": json.loads(spec_of(self.model).to_json())}

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self.model, save_directory / FILE)

    @classmethod
    def from_pretrained(cls, model_id: str | os.PathLike[str], **options: Any) -> HubModel:  # type: ignore[override]
        """Load a model in eval mode from a folder or from a repository of the Hub.

        Args:
            model_id: a folder, or the name of a repository such as "user/model".
            options: options of `ModelHubMixin.from_pretrained`.

        Raises:
            WeightsError: neither the folder nor the repository can be read, or the weights file is broken.
        """
        try:
            return super().from_pretrained(os.fspath(model_id), **options)
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise WeightsError(
                f"{model_id}: expected a folder with {FILE} or a repository of the Hub, which cannot be read: {reason}"
            ) from None

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> HubModel:
        if os.path.isdir(model_id):
            return cls(load(os.path.join(model_id, FILE))).eval()
        return cls(load(hf_hub_download(model_id, FILE, **options))).eval()


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))
