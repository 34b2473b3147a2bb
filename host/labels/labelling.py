"""Reading the pictures of a feature set with a label source: a few at a time, interruptible, and each one only once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import comfy.model_management
import folder_paths
import torch
import torch.nn.functional as F
from torch import Tensor

from ...methods.data.feature_set import Entry, FeatureSet
from ...methods.labels.label_cache import LabelCache, stamp_of
from ...methods.labels.labels import LabelSet, write_csv
from ...methods.labels.regions import Region, focus
from ...methods.labels.skin_tone import CLASSES, read_skin_tone, tone_probabilities
from ...models.files import write_text
from ..core.progress import WorkStage
from ..data.feature_sets import features_root, read_picture
from .classifier import BYTES_PER_PIXEL, HostClassifier

BATCH, PIXELS = 32, 2**22
"""At most so many pictures, and pixels, are in memory at once (four pictures of 1024 x 1024)."""
SAVE_SECONDS = 20.0


@dataclass(frozen=True)
class ImageSource:
    """A source that reads labels from pictures."""

    kind: str
    """Kind of the source, a word."""
    attributes: dict[str, tuple[str, ...]]
    """Attribute -> classes."""
    key: Mapping[str, Any]
    """All settings that readings depend on, besides picture and region; JSON values."""
    read: Callable[[Tensor, Tensor | None], dict[str, Tensor]]
    """Takes IMAGE [B, H, W, 3], and masks [B, H, W] or None. Returns readings: float [B, K] for every attribute, and anything else to
    store, float [B, n]."""
    origin: str
    """Description of the source."""
    focus: bool = True
    """Whether pictures are cut to their mask, so that ``read`` gets no masks."""


def label_images(features: FeatureSet, source: ImageSource, region: Region) -> tuple[LabelSet, dict[str, Tensor]]:
    """Label every picture of a set.

    Also returns the source's other readings [N, n].

    Only pictures that the source has not read before are read; what it has read is kept in the set's folder, also where it is interrupted.
    Raises ValueError where a picture is missing or unreadable.
    """
    entries = features.entries
    if not entries:
        raise ValueError(f"the feature set '{features.folder.name}' holds no images yet: record some first.")
    region.check(len(entries))
    stamps = [_stamp(features, e) for e in entries]
    # A mask per picture goes by the picture's place, so there it is part of what was read.
    one_each = region.mask is not None and len(region.mask) > 1
    stamps = [f"{i}|{s}" for i, s in enumerate(stamps)] if one_each else stamps
    cache = LabelCache(features.folder, source.kind, {"source": dict(source.key), "region": region.key()})
    wanted = [i for i, s in enumerate(stamps) if s not in cache]
    done = len(entries) - len(wanted)
    stage = WorkStage(f"Labels by {source.kind}", len(entries))
    stage.update(done)
    saved = time.monotonic()
    try:
        for indices, images, masks in _batches(features, wanted, source, region):
            cache.add([stamps[i] for i in indices], source.read(images, masks))
            done += len(indices)
            stage.update(done)
            if time.monotonic() - saved > SAVE_SECONDS:
                cache.save()
                saved = time.monotonic()
    finally:
        cache.save()
    table = cache.table(stamps)
    labels = LabelSet(
        dict(source.attributes),
        tuple(e.file for e in entries),
        {a: table[a] for a in source.attributes},
        dict.fromkeys(source.attributes, source.origin),
    )
    return labels, {name: t for name, t in table.items() if name not in source.attributes}


def picture_of(features: FeatureSet, entry: Entry) -> Tensor:
    """Read a picture of a set, float32 [H, W, 3] in 0..1.

    Raises ValueError where it is missing or cannot be read.
    """
    path = features.image_path(entry)
    if not path.is_file():
        raise _missing(features, entry)
    return read_picture(path)


def thumbnails(features: FeatureSet, indices: Sequence[int], size: int = 192) -> Tensor:
    """Make thumbnails of a set's pictures: [n, 3, H, W] in 0..1.

    At most ``size`` high and wide, padded with white to one size. Missing pictures are grey.
    """
    small = []
    for i in indices:
        path = features.image_path(features.entries[i])
        picture = read_picture(path).movedim(-1, 0) if path.is_file() else torch.full((3, size, size), 0.8)
        scale = size / max(picture.shape[1:])
        if scale < 1:
            shape = [max(1, round(s * scale)) for s in picture.shape[1:]]
            picture = F.interpolate(picture[None], size=shape, mode="bilinear", antialias=True, align_corners=False)[0]
        small.append(picture.clamp(0, 1))
    h, w = max(p.shape[1] for p in small), max(p.shape[2] for p in small)
    return torch.stack([F.pad(p, (0, w - p.shape[2], 0, h - p.shape[1]), value=1.0) for p in small])


def save_labels(features: FeatureSet, labels: LabelSet) -> Path:
    """Write labels.csv into the set's folder.

    One that was there and differs, say as it was corrected by hand, is kept beside it.
    """
    path = features.folder / "labels.csv"
    earlier = path.read_bytes() if path.is_file() else None
    write_csv(labels, path)
    if earlier is not None and earlier != path.read_bytes():
        write_text(path.with_name("labels.previous.csv"), earlier.decode("utf-8", "replace"))
    return path


def label_file(name: str) -> Path:
    """Find a label file (CSV) by its name.

    In ComfyUI's input folder, or among the feature sets ("NAME/labels.csv").

    Raises ValueError for a path that leads elsewhere, and where there is no such file.
    """
    text = name.strip()
    parts = PurePosixPath(text.replace("\\", "/")).parts
    if not text or ".." in parts or text[0] in "/\\" or PureWindowsPath(text).drive or not text.lower().endswith((".csv", ".tsv", ".txt")):
        raise ValueError(f"'{name}' is no name of a label file: give a .csv in ComfyUI's input folder, such as labels.csv.")
    for root in (Path(folder_paths.get_input_directory()), features_root()):
        path = root.joinpath(*parts)
        if path.is_file():
            return path
    raise ValueError(
        f"there is no '{text}' in ComfyUI's input folder, nor below output/equipoise/features: put the file there, or correct the name."
    )


def label_file_fingerprint(name: str) -> str:
    """Return a text that changes whenever the file changes."""
    try:
        path = label_file(name)
        stat = os.stat(path)
    except (OSError, ValueError):
        return f"{name}: missing"
    return f"{path}|{stat.st_mtime_ns}|{stat.st_size}"


def classifier_source(classifier: HostClassifier, attributes: Sequence[str] = ()) -> ImageSource:
    """Make a label source of a classifier, for some or all attributes.

    Raises ValueError for one that it does not read.
    """
    chosen = tuple(dict.fromkeys(attributes)) or tuple(classifier.attributes)
    unknown = next((a for a in chosen if a not in classifier.attributes), None)
    if unknown is not None:
        raise ValueError(f"the classifier '{classifier.name}' does not read '{unknown}'; it reads: {', '.join(classifier.attributes)}.")

    def read(images: Tensor, masks: Tensor | None) -> dict[str, Tensor]:
        memory = BYTES_PER_PIXEL * classifier.model.image_size**2 * len(images)
        comfy.model_management.load_models_gpu([classifier.patcher], memory_required=memory, force_full_load=True)
        readings = classifier.model.probabilities(images.movedim(-1, 1), batch=len(images))
        return {a: readings[a] for a in chosen}

    return ImageSource(
        kind="classifier",
        attributes={a: classifier.attributes[a] for a in chosen},
        key={"classifier": classifier.fingerprint(), "attributes": {a: list(classifier.attributes[a]) for a in chosen}},
        read=read,
        origin=f"classifier {classifier.name}",
    )


def skin_tone_source(attribute: str, softness: float) -> ImageSource:
    """Make a label source of the individual typology angle (ITA).

    It also gives ``ita`` [N, 2]: the angle in degrees, and 1 if it could be read.
    """

    def read(images: Tensor, masks: Tensor | None) -> dict[str, Tensor]:
        reading = read_skin_tone(images.movedim(-1, 1), masks)
        return {attribute: tone_probabilities(reading, softness), "ita": torch.stack([reading.angle, reading.read.float()], dim=1)}

    return ImageSource(
        kind="skin-tone",
        attributes={attribute: CLASSES},
        key={"attribute": attribute, "softness": softness},
        read=read,
        origin="individual typology angle",
        focus=False,
    )


def _stamp(features: FeatureSet, entry: Entry) -> str:
    try:
        return stamp_of(entry.file, features.image_path(entry))
    except FileNotFoundError as error:
        raise _missing(features, entry) from error


def _missing(features: FeatureSet, entry: Entry) -> ValueError:
    return ValueError(
        f"the picture '{entry.file}' of the feature set '{features.folder.name}' is missing: put it back into the set's images folder, or "
        "record anew."
    )


def _batches(
    features: FeatureSet, wanted: Sequence[int], source: ImageSource, region: Region
) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """Yield indices, pictures and masks in order.

    Pictures [B, H, W, 3], masks [B, H, W] or None; pictures of a batch have one size.
    """
    indices: list[int] = []
    pictures: list[Tensor] = []
    masks: list[Tensor] = []

    def batch() -> tuple[list[int], Tensor, Tensor | None]:
        made = list(indices), torch.stack(pictures), torch.stack(masks) if masks else None
        for values in (indices, pictures, masks):
            values.clear()
        return made

    for i in wanted:
        entry = features.entries[i]
        picture, mask = region.cut(picture_of(features, entry), i)
        if mask is not None and source.focus:
            picture, mask = focus(picture, mask, entry.file), None
        if pictures and (picture.shape != pictures[0].shape or len(pictures) >= min(BATCH, PIXELS // picture[..., 0].numel())):
            yield batch()
        indices.append(i)
        pictures.append(picture)
        if mask is not None:
            masks.append(mask)
    if pictures:
        yield batch()
