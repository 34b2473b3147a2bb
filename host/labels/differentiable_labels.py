"""Make a VAE and a classifier of the host one differentiable function, from latents to the logits of attributes.

Both are copied outside inference mode; the host's own stay as they were.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import comfy.pixel_space_convert
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...models.class_order import in_class_order, matched
from ..core.fit.differentiable import load_whole
from ..core.types import Model, Vae
from ..core.versions import resident
from .classifier import HostClassifier

ROWS = 1
"""Images that a learned VAE decodes at once. Its activations are computed again for the gradient: at 512 x 512 an image takes gigabytes."""


class DifferentiableLabels:
    """Reads the logits of attributes from latents, differentiably.

    Raises ValueError if the VAE does not decode to images.
    """

    def __init__(self, model: Model, vae: Vae, classifier: HostClassifier, attributes: Mapping[str, Sequence[str]]) -> None:
        if getattr(vae, "latent_dim", 2) != 2 or getattr(vae, "output_channels", 3) != 3:
            raise ValueError("the connected VAE does not decode to images (it is one for video or sound): connect the model's own VAE.")
        remedy = "connect one that does, or name other attributes"
        self._order = matched(attributes, classifier.attributes, "the fit", f"the classifier '{classifier.name}'", remedy)
        self._unscaled, self._output = model.model.process_latent_out, vae.process_output
        patcher = resident(vae.patcher)
        load_whole([patcher, classifier.patcher], 0)
        with torch.inference_mode(False):
            self._vae = copy.deepcopy(patcher.model).requires_grad_(False).eval()
            self._classifier = copy.deepcopy(classifier.model).requires_grad_(False).eval()
            self._dtype: torch.dtype = vae.vae_dtype
            if self._dtype == torch.float16:
                self._dtype = torch.float32
                self._vae.float()
        self._device: torch.device = vae.device
        self._plain = isinstance(patcher.model, comfy.pixel_space_convert.PixelspaceConversionVAE)

    def logits(self, latents: Tensor) -> dict[str, Tensor]:
        """Read latents [B, C, H, W] in the model's scale: attribute -> [B, K]."""
        if self._plain:
            return self._read(latents)
        parts = [checkpoint(self._read, chunk, use_reentrant=False) for chunk in latents.split(ROWS)]
        return {a: torch.cat([p[a] for p in parts]) for a in self._order}

    def _read(self, latents: Tensor) -> dict[str, Tensor]:
        decoded = self._vae.decode(self._unscaled(latents).to(self._device, self._dtype))
        images = self._output(decoded.float().clone()).to(latents.device)  # the host's own works in place
        read = self._classifier(self._classifier.preprocess(images))
        return in_class_order({a: logits.float() for a, logits in read.items()}, self._order)
