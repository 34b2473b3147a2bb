"""Images and texts that a node shows on itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from comfy_api.latest import ui

if TYPE_CHECKING:
    from comfy_api.latest import io


def as_image(picture: np.ndarray) -> torch.Tensor:
    """Turn a picture, uint8 [H, W, 3], into an IMAGE [1, H, W, 3]."""
    return torch.from_numpy(picture).unsqueeze(0).float() / 255


def as_batch(images: list[torch.Tensor]) -> torch.Tensor:
    """Join IMAGEs of one width into a batch, padded with white below."""
    height = max(i.shape[1] for i in images)
    return torch.cat([torch.nn.functional.pad(i, (0, 0, 0, 0, 0, height - i.shape[1]), value=1.0) for i in images])


def shown(cls: type[io.ComfyNode], image: torch.Tensor, text: str) -> dict[str, Any]:
    """Show an IMAGE and a text on the node itself."""
    return {**ui.PreviewImage(image, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
