"""The part of a picture that a label source looks at: a box, a mask, or both. No detector: the user says where to look."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...models.digests import tensor_digest

WHOLE = (0.0, 0.0, 1.0, 1.0)
GREY = 0.5
Box = tuple[float, float, float, float]
"""Left, top, width, height, as shares of the picture's width and height."""


def parse_box(text: str) -> Box:
    """Read "0.25, 0.1, 0.5, 0.6"; empty is the whole picture.

    Raises ValueError for anything that is no box within it.
    """
    if not text.strip():
        return WHOLE
    try:
        values = [float(v) for v in re.split(r"[,;\s]+", text.strip())]
    except ValueError:
        values = []
    wanted = "write left, top, width, height as shares of the picture, for instance 0.25, 0.1, 0.5, 0.6"
    if len(values) != 4:
        raise ValueError(f"'{text.strip()}' is no box: {wanted}.")
    left, top, width, height = values
    inside = left >= 0 and top >= 0 and width > 0 and height > 0 and left + width <= 1 + 1e-6 and top + height <= 1 + 1e-6
    if not inside:
        raise ValueError(f"the box {text.strip()} does not lie within the picture: {wanted}, with left + width and top + height up to 1.")
    return left, top, width, height


@dataclass(frozen=True)
class Region:
    """Where to look in pictures."""

    box: Box = WHOLE
    """Box within the picture."""
    mask: Tensor | None = None
    """Mask in 0..1, float [1, H, W] for all pictures or [N, H, W]; None: everywhere."""

    def key(self) -> dict[str, Any]:
        """Describe the region in a text, for a cache's key."""
        return {"box": list(self.box), "mask": None if self.mask is None else tensor_digest(self.mask)}

    def check(self, images: int) -> None:
        """Raise ValueError unless there is one mask, or one for each picture."""
        if self.mask is not None and (self.mask.ndim != 3 or len(self.mask) not in (1, images)):
            raise ValueError(f"a mask of shape {list(self.mask.shape)} does not fit {images} pictures: give one mask, or one for each.")

    def cut(self, picture: Tensor, index: int) -> tuple[Tensor, Tensor | None]:
        """Cut a picture and its mask to the box.

        Returns picture ``index``, [H, W, 3], and its mask [H, W] stretched to it; at least one pixel.
        """
        h, w = picture.shape[:2]
        left, top, width, height = self.box
        x, y = min(w - 1, round(left * w)), min(h - 1, round(top * h))
        part = (slice(y, max(y + 1, round((top + height) * h))), slice(x, max(x + 1, round((left + width) * w))))
        if self.mask is None:
            return picture[part], None
        mask = self.mask[index if len(self.mask) > 1 else 0].float()
        if tuple(mask.shape) != (h, w):
            mask = F.interpolate(mask[None, None], size=(h, w), mode="bilinear", align_corners=False)[0, 0]
        return picture[part], mask[part].to(picture.device)


def focus(picture: Tensor, mask: Tensor, name: str) -> Tensor:
    """Cut a picture to the smallest box around its mask.

    picture [H, W, 3], mask [H, W] (above 0.5). What lies outside of the mask becomes mid grey.

    Raises ValueError, naming the picture, where nothing of the mask is above 0.5.
    """
    inside = mask > 0.5
    if not inside.any():
        raise ValueError(f"the mask of '{name}' is empty where it is looked at: draw it over what is to be labelled.")
    rows, columns = torch.nonzero(inside.any(1))[:, 0], torch.nonzero(inside.any(0))[:, 0]
    part = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    weight = mask[part].clamp(0, 1).unsqueeze(-1)
    return picture[part] * weight + GREY * (1 - weight)
