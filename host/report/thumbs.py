"""Small pictures of a batch with what was assigned and seen, for the front end to show on a node."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import folder_paths
import torch
from PIL import Image, ImageOps
from torch import Tensor

MOST = 64
"""Images that are shown; a node has no room for more."""
TILE, COLUMNS = 96, 8
"""Side of a picture, in pixels, and how many stand in a row of the file."""
GROUND = (128, 128, 128)


def thumbnails(
    images: Tensor,
    seen: Mapping[str, Tensor],
    classes: Mapping[str, Sequence[str]],
    assigned: Mapping[str, Sequence[str]] | None = None,
) -> list[dict[str, Any]]:
    """The first images, in one file below the host's temporary folder, and what to write beside them: a list of one dict, as the host's
    ``ui`` wants it.

    images [N, H, W, 3 or 4] in 0..1; ``seen``: attribute -> class probabilities [N, K]; ``classes``: its class names; ``assigned``:
    attribute -> class name of every image, where any were.
    """
    shown = min(len(images), MOST)
    columns = min(shown, COLUMNS)
    sheet = Image.new("RGB", (columns * TILE, -(-shown // columns) * TILE), GROUND)
    for i, pixels in enumerate((images[:shown, ..., :3].detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).numpy()):
        tile = _tile(Image.fromarray(pixels))
        place = divmod(i, columns)
        sheet.paste(tile, (place[1] * TILE + (TILE - tile.width) // 2, place[0] * TILE + (TILE - tile.height) // 2))
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    name = f"equipoise_thumbs_{uuid.uuid4().hex}.jpg"
    sheet.save(folder / name, quality=88)
    read = {a: [classes[a][k] for k in p[:shown].argmax(-1).tolist()] for a, p in seen.items()}
    told = {
        "sheet": {"filename": name, "subfolder": "", "type": "temp"},
        "columns": columns,
        "images": len(images),
        "seen": [{a: names[i] for a, names in read.items()} for i in range(shown)],
        "assigned": None if assigned is None else [{a: names[i] for a, names in assigned.items()} for i in range(shown)],
    }
    return [told]


def _tile(image: Image.Image) -> Image.Image:
    """An image as large as a tile allows; small ones are enlarged by whole pixels' colours."""
    small = max(image.size) < TILE
    return ImageOps.contain(image, (TILE, TILE), Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC)
