"""Zero-shot heads in the host: made with its CLIP, or found in its model folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from ...methods.labels.label_text import ClassSpec
from ...models.files import read_metadata, read_safetensors
from ...models.zero_shot_head import FORMAT, ZeroShotHead, class_embeddings, load_zero_shot_head, save_zero_shot_head
from ..core import files as model_files
from ..core.types import Clip, ClipVision
from ..labels.clip_zero_shot import text_directions

KEY = "equipoise_zero_shot_heads"
ZERO_SHOT_FILES = model_files.FileKind(KEY, "a zero-shot head", save_zero_shot_head)


def make_head(
    clip: Clip,
    classes: ClassSpec,
    templates: Sequence[str],
    scale: float,
    files: Mapping[str, Sequence[Path]],
    vision: ClipVision | None = None,
) -> tuple[ZeroShotHead, str]:
    """Make a head for the one attribute of ``classes``.

    Also describes the encoder and its projections.

    Raises ValueError for several attributes, and for a CLIP without its text projection or of another width than vision's.
    """
    if len(classes) != 1:
        raise ValueError(f"a zero-shot head has one attribute, and {len(classes)} are given ({', '.join(classes)}): make a head for each.")
    ((attribute, named),) = classes.items()
    directions, encoder = text_directions(clip, classes, templates, files, vision)
    info = {"classes": {c: list(m) for c, m in named.items()}, "templates": list(templates), "encoder": encoder}
    return ZeroShotHead(attribute, tuple(named), directions[attribute], scale, info), encoder


def load_head(name: str, scale: float) -> ZeroShotHead:
    """Load a head from its folder.

    The file is one that Zero-Shot Attribute Head saved, or a safetensors file of text embeddings with a tensor [D] or [P, D] for each
    class, by the class's name; the attribute then has the file's name. ``scale`` is for files that state none.

    Raises FileNotFoundError, or ValueError for a file of another kind.
    """
    path = model_files.resolve(KEY, name)
    if "format" in read_metadata(path):
        return load_zero_shot_head(path)
    tensors, _ = read_safetensors(path)
    rows = {label: t.float() if t.ndim == 2 else t.float()[None] for label, t in tensors.items()}
    widths = {r.shape[-1] for r in rows.values()}
    if len(rows) < 2 or len(widths) != 1 or any(r.ndim != 2 or not len(r) for r in rows.values()):
        raise ValueError(
            f"'{path.name}' is no file of text embeddings: expected a tensor of one width for each of two or more classes, or a file "
            f"of the format {FORMAT.name} that Zero-Shot Attribute Head saved."
        )
    with torch.no_grad():
        return ZeroShotHead(path.stem, tuple(rows), class_embeddings(list(rows.values())), scale, {"file": path.name})
