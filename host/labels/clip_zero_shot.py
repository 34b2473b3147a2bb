"""CLIP zero-shot labels with the host's own CLIP_VISION and CLIP: no classifier, the classes are told in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import comfy.model_management
import torch
from torch import Tensor

from ...methods.labels.label_text import ClassSpec
from ...methods.labels.zero_shot import class_direction, phrasings, zero_shot
from ...models.digests import tensor_digest
from ..core.types import Clip, ClipVision
from .clip_projection import in_files, is_blank
from .labelling import ImageSource

ENCODERS = ("clip_l", "clip_g", "clip_h")
"""Names that the host gives to CLIP text models within a CLIP; without "clip_", those of their tokens."""
HOLDERS = {
    768: "OpenAI's whole CLIP ViT-L/14 has it (clip-vit-large-patch14, model.safetensors; the file serves Load CLIP and Load CLIP Vision "
    "both), while SD1.5 checkpoints and the clip_l.safetensors that goes with SD3 and Flux mostly leave it out",
    1024: "SD2.x checkpoints have it, in their OpenCLIP ViT-H/14",
    1280: "SDXL checkpoints have it, in their OpenCLIP ViT-bigG/14",
}
"""Width of the shared space -> which file holds the text projection into it."""
COSINE = "cosine"
EDIT_MARK = "equipoise_edit_mark"
"""Attribute of a CLIP_VISION that an edit of its network sets."""


def clip_source(
    vision: ClipVision, clip: Clip, classes: ClassSpec, templates: Sequence[str], files: Mapping[str, Sequence[Path]] | None = None
) -> tuple[ImageSource, str]:
    """Make a label source of CLIP for attributes given in words.

    Also returns a sentence on the projections.

    classes: attribute -> class -> phrases (:mod:`..methods.label_text`). templates: see :func:`..methods.zero_shot.read_templates`. files:
    "vision" and "clip" -> the weight files they came from, as far as known. Readings also hold ``cosine`` [N, 1], the largest one.

    Raises ValueError for an image encoder that is not CLIP's, one that does not go with the text encoder, and where
    either projection is missing: then it says which file has it.
    """
    directions, note = text_directions(clip, classes, templates, files, vision)
    projection, mark = _image_projection(vision), edit_mark(vision)
    edited = {"edited": mark} if mark else {}

    def read(images: Tensor, masks: Tensor | None) -> dict[str, Tensor]:
        embeddings = vision.encode_image(images)["image_embeds"]
        probabilities, largest = {}, []
        for attribute, vectors in directions.items():
            probabilities[attribute], cosine = zero_shot(embeddings, vectors)
            largest.append(cosine)
        return {**probabilities, COSINE: torch.stack(largest, dim=1).amax(1, keepdim=True)}

    source = ImageSource(
        kind="clip",
        attributes={a: tuple(named) for a, named in classes.items()},
        key={
            "classes": {a: {c: list(m) for c, m in named.items()} for a, named in classes.items()},
            "templates": list(templates),
            "directions": {a: tensor_digest((d * 1e4).round()) for a, d in directions.items()},
            "vision": [tensor_digest(projection), tensor_digest(vision.model.vision_model.embeddings.patch_embedding.weight)],
            **edited,
        },
        read=read,
        origin="CLIP zero-shot",
    )
    return source, note


def edit_mark(vision: ClipVision) -> str:
    """Return what tells an edited CLIP_VISION from others; empty for one without edits.

    Labels of an edited model are cached apart from those of the original.
    """
    return getattr(vision, EDIT_MARK, "")


def text_directions(
    clip: Clip,
    classes: ClassSpec,
    templates: Sequence[str],
    files: Mapping[str, Sequence[Path]] | None = None,
    vision: ClipVision | None = None,
) -> tuple[dict[str, Tensor], str]:
    """Turn classes given in words into directions in CLIP's shared space.

    attribute -> float32 [K, D], and a sentence on the projections. ``vision``: the CLIP_VISION that they are for; None if the CLIP has one
    text model alone. Errors as of :func:`clip_source`.
    """
    files = files or {}
    known = []
    if vision is None:
        width = _only_width(clip)
    else:
        projection = _image_projection(vision)
        width = projection.shape[0]
        known.append(_check(projection, files.get("vision", ()), ("visual_projection.weight", "visual.proj"), "image", width))
    name = _text_encoder(clip, width)
    text_projection = getattr(clip.cond_stage_model, name).transformer.text_projection.weight
    known.append(_check(text_projection, files.get("clip", ()), ("text_projection.weight", "text_projection"), "text", width))
    encoders = {
        attribute: torch.stack(
            [class_direction(_embeddings(clip, name, phrasings(members, templates, attribute))) for members in named.values()]
        )
        for attribute, named in classes.items()
    }
    both = "both projections were found in their files" if vision is not None else "the projection was found in its file"
    lost = "the projections could not be traced to a file" if vision is not None else "the projection could not be traced to a file"
    return encoders, f"{width} dimensions, text encoder {name}; {both if all(known) else lost}"


def _image_projection(vision: ClipVision) -> Tensor:
    """Return the projection [D, hidden] of CLIP's image encoder."""
    weight = getattr(getattr(vision.model, "visual_projection", None), "weight", None)
    if not isinstance(weight, Tensor) or not hasattr(vision.model, "vision_model"):
        raise ValueError(
            "this image encoder has no projection into the space that CLIP's text and images share (SigLIP and DINO have none, and some "
            "files leave it out): load CLIP ViT-L/14, ViT-H/14 or ViT-bigG/14 with Load CLIP Vision."
        )
    return weight


def _widths(clip: Clip) -> dict[str, int]:
    """List the CLIP text models within a CLIP with their projected widths."""
    widths = {}
    for name in ENCODERS:
        projection = getattr(getattr(getattr(clip.cond_stage_model, name, None), "transformer", None), "text_projection", None)
        if isinstance(getattr(projection, "weight", None), Tensor):
            widths[name] = projection.weight.shape[0]
    return widths


def _only_width(clip: Clip) -> int:
    widths = _widths(clip)
    if len(set(widths.values())) != 1:
        met = " and ".join(f"{n} with {w}" for n, w in widths.items())
        which = f"holds the text models {met}" if met else "holds no text model of CLIP's"
        raise ValueError(f"this CLIP {which}: connect the CLIP vision model that the head is for, and a CLIP that belongs to it.")
    return next(iter(widths.values()))


def _text_encoder(clip: Clip, width: int) -> str:
    """Return the name of the CLIP text model with this width."""
    widths = _widths(clip)
    name = next((n for n, w in widths.items() if w == width), None)
    if name is None:
        met = ", ".join(f"{n} with {w}" for n, w in widths.items()) or "none of CLIP's"
        which = f": {HOLDERS[width]}" if width in HOLDERS else ""
        raise ValueError(f"the image encoder has {width} dimensions and the text encoder {met}: connect the two of one CLIP{which}.")
    return name


def _check(weight: Tensor, files: Sequence[Path], endings: Sequence[str], what: str, width: int) -> bool:
    """Return whether the matrix was found in a file.

    Raises ValueError if it is missing.
    """
    there = in_files(weight, files, endings)
    if there is False or is_blank(weight):
        named = " and ".join(f"'{p.name}'" for p in files)
        where = f"{named} {'hold' if len(files) > 1 else 'holds'} none" if named else "the file that was loaded holds none"
        which = HOLDERS.get(width, "take a file with the whole CLIP model") if what == "text" else "take a file with the whole CLIP model"
        raise ValueError(f"the {what} encoder's projection into CLIP's shared space is missing ({where}): {which}.")
    return bool(there)


def _embeddings(clip: Clip, name: str, phrases: Sequence[str]) -> Tensor:
    """Compute projected text embeddings [P, D], float32 on the CPU.

    The pooled output is asked of one text model, as the host's CLIP may hold several, or be set to give it unprojected.
    """
    encoder = getattr(clip.cond_stage_model, name)
    comfy.model_management.load_models_gpu([clip.patcher])
    encoder.reset_clip_options()
    encoder.set_clip_options({"projected_pooled": True, "execution_device": clip.patcher.load_device})
    try:
        rows = []
        for phrase in phrases:
            comfy.model_management.throw_exception_if_processing_interrupted()
            literal = phrase.replace("(", "\\(").replace(")", "\\)")  # the host reads brackets as weights
            rows.append(encoder.encode_token_weights(clip.tokenize(literal)[name.removeprefix("clip_")])[1].float().cpu())
    finally:
        encoder.reset_clip_options()
    return torch.cat(rows)
