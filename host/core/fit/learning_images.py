"""The pictures of a feature set as latents in memory, and the prompts that they were made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import torch
from PIL import Image
from torch import Tensor

from ....methods.data.feature_set import Entry, FeatureSet
from ...data.feature_sets import read_picture

IMAGES = 2048
"""Most images that are learned from; of a larger set, as many at even distances."""
MEMORY = 2**31
"""Bytes that latents may take: fp32 where they fit, else fp16, else fewer images."""
CHUNK = 8


def learning_latents(model: Any, vae: Any, features: FeatureSet) -> tuple[Tensor, list[int], str]:
    """Latents [N, C, H, W] on the CPU in the model's own scale, the places of their entries in the set, and a line on what was left out.

    Pictures of the most common size are used. Raises ValueError where a picture is missing or cannot be read; the host's exception where
    the user interrupts.
    """
    paths = [_path(features, e) for e in features.entries]
    places = even(range(len(paths)), IMAGES)
    sizes = [_size(paths[i]) for i in places]
    size = Counter(sizes).most_common(1)[0][0]
    same = [i for i, s in zip(places, sizes, strict=True) if s == size]
    each = vae.encode(read_picture(paths[same[0]])[None]).numel()
    dtype = torch.float32 if 4 * each * len(same) <= MEMORY else torch.float16
    same = even(same, max(CHUNK, MEMORY // (each * dtype.itemsize)))
    bar = comfy.utils.ProgressBar(len(same))
    parts: list[Tensor] = []
    for start in range(0, len(same), CHUNK):
        comfy.model_management.throw_exception_if_processing_interrupted()
        pictures = torch.stack([read_picture(paths[i]) for i in same[start : start + CHUNK]])
        parts.append(model.model.process_latent_in(vae.encode(pictures)).to("cpu", dtype))
        bar.update_absolute(start + len(pictures), len(same))
    with torch.inference_mode(False):
        latents = torch.cat(parts)
    left = len(paths) - len(same)
    note = f"; {left} others of the set were left out (of another size, or more than are needed)" if left else ""
    return latents, same, f"{len(same)} images of {size[0]} x {size[1]} from '{features.name}'{note}"


def even(values: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the values, at even distances."""
    if len(values) <= count:
        return list(values)
    return [values[i * len(values) // count] for i in range(count)]


def _path(features: FeatureSet, entry: Entry) -> Path:
    path = features.image_path(entry)
    if not path.is_file():
        raise ValueError(
            f"the picture '{entry.file}' of the feature set '{features.name}' is missing, and directions are learned from pictures: copy "
            "it back, or record the set again."
        )
    return path


def _size(path: Path) -> tuple[int, int]:
    """Width and height, turned as its EXIF data say."""
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5
            return picture.size[::-1] if turned else picture.size
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"the picture '{path.name}' cannot be read ({error}): copy it back, or record the set again.") from error


def encoded_prompts(clip: Any, prompts: Sequence[str]) -> tuple[list[Any], Tensor]:
    """A CONDITIONING for every different prompt, and for every prompt its place among them, int64 [N]."""
    different = list(dict.fromkeys(prompts))
    found = []
    for prompt in different:
        comfy.model_management.throw_exception_if_processing_interrupted()
        found.append(clip.encode_from_tokens_scheduled(clip.tokenize(prompt)))
    with torch.inference_mode(False):
        return found, torch.tensor([different.index(p) for p in prompts])
