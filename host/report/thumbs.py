"""Small pictures of a batch with the classes assigned and seen, which the front end shows on a node."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..core.live import running_workflow

MOST = 64
"""Upper limit of the images on a node, which has no room for more."""
TILE, COLUMNS = 96, 8
"""Side of a picture in pixels, and pictures per row of the file."""
GROUND = (128, 128, 128)


def image_thumbs(
    images: Tensor,
    seen: Mapping[str, Tensor],
    classes: Mapping[str, Sequence[str]],
    assigned: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """Write the first images into one temporary file, for the front end.

    Returns a list of one dict for ``ui``.

    The dict holds the file and what the front end writes below each image.

    images [N, H, W, 3 or 4] in 0..1; ``seen``: attribute -> class probabilities [N, K]; ``classes``: its class names; ``assigned``:
    attribute -> class name of every image, where any were.
    """
    shown = min(len(images), MOST)
    columns = min(shown, COLUMNS)
    sheet = Image.new("RGB", (columns * TILE, -(-shown // columns) * TILE), GROUND)
    for i, pixels in enumerate((images[:shown, ..., :3].detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()):
        tile = _tile(Image.fromarray(pixels))
        cell = divmod(i, columns)
        sheet.paste(tile, (cell[1] * TILE + (TILE - tile.width) // 2, cell[0] * TILE + (TILE - tile.height) // 2))
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"equipoise_thumbs_{uuid.uuid4().hex}.jpg"
    sheet.save(folder / name, quality=88)
    read = {a: [classes[a][k] for k in p[:shown].argmax(-1).tolist()] for a, p in seen.items()}
    sheet_info = {
        "workflow": running_workflow(),
        "sheet": {"filename": name, "subfolder": "", "type": "temp"},
        "columns": columns,
        "images": len(images),
        "seen": [{a: names[i] for a, names in read.items()} for i in range(shown)],
        "assigned": None if assigned is None else [{a: names[i] for a, names in assigned.items()} for i in range(shown)],
    }
    return [sheet_info]


def _tile(image: Image.Image) -> Image.Image:
    """Fit an image into a tile; small images are enlarged without smoothing."""
    small = max(image.size) < TILE
    return ImageOps.contain(image, (TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)
