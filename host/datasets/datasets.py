"""Find data sets of labelled images in the host, save images into them, and load their pictures for a training."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import torch
import torch.nn.functional as F
from comfy.cli_args import args
from PIL import Image
from torch import Tensor

from ...methods.core.targets import TargetDistribution
from ...methods.datasets.classifier_training import Examples
from ...methods.datasets.image_folder import (
    FACTS,
    GENERATED,
    GRAPH,
    METADATA,
    METADATA_CSV,
    ORIGIN,
    SOURCE,
    SPLITS,
    ImageFolder,
    Row,
    open_image_folder,
)
from ...methods.datasets.image_folder_writer import ImageFolderWriter, Item, Saved, parse_splits
from ...methods.labels.labels import LabelSet
from ...metrics.fairness import UNSURE_BELOW
from ...models.files import stays_below, write_text
from ..core.files import check_file_name, storable
from ..data.feature_sets import read_picture
from ..labels.classifier import HostClassifier

DATASETS_PATH = "output/equipoise/datasets"
INPUT = "input/"
CHUNK = 64
MOST_BYTES = 8e9
"""Most memory that the pictures of a training may take."""


@dataclass(frozen=True)
class SaveSettings:
    """Set how images are saved into a data set."""

    splits: str = "train"
    """Splits and their shares, as the user writes them."""
    target: TargetDistribution | None = None
    """Target of the data set; None saves all images."""
    size: int = 0
    """Size of the data set, see :meth:`..methods.data.image_folder_writer.ImageFolderWriter.add`."""
    class_folder: str = ""
    """Attribute whose classes become folders."""
    sure: float = 0.0
    """Images whose least sure label has a lower probability are left out."""
    origin: str = GENERATED
    """"real" or "generated"."""
    graph: Any = None
    """Prompt graph that made the images, or None."""


def datasets_root() -> Path:
    """Return the folder that holds the data sets; it need not exist yet."""
    return Path(folder_paths.get_output_directory()) / "equipoise" / "datasets"


def dataset_folder(name: str) -> Path:
    """Return the folder of a set to write.

    Raises ValueError for a path, or a name that not every system can store.
    """
    name = name.strip()
    check_file_name(name, "a data set", DATASETS_PATH)
    return datasets_root() / name


def dataset_names() -> list[str]:
    """List the sets of Save Balanced Dataset and the input folder's folders.

    The latter are named "input/NAME".
    """
    root, input_folder = datasets_root(), Path(folder_paths.get_input_directory())
    names = sorted(p.name for p in root.iterdir() if (p / FACTS).is_file() and storable(p.name)) if root.is_dir() else []
    if input_folder.is_dir():
        names += sorted(f"{INPUT}{p.name}" for p in input_folder.iterdir() if p.is_dir() and p.name[:1] not in "._")
    return names


def find_dataset(name: str) -> Path:
    """Find the folder of a set by its name in :func:`dataset_names`. Raises ValueError without one."""
    if name.startswith(INPUT):
        parts = PurePosixPath(name[len(INPUT) :]).parts
        root = Path(folder_paths.get_input_directory())
        if stays_below("/".join(parts)) and root.joinpath(*parts).is_dir():
            return root.joinpath(*parts)
    elif dataset_folder(name).is_dir():
        return dataset_folder(name)
    raise ValueError(f"there is no data set '{name[:60]}'; choose among: {', '.join(dataset_names()) or 'none yet'}.")


def dataset_fingerprint(name: str) -> str:
    """Return a text that changes whenever a set's metadata change.

    Or its folders, if it has no metadata.
    """
    try:
        root = find_dataset(name)
        files = [f for n in (METADATA, METADATA_CSV) for f in sorted(root.rglob(n))] or [root, *(p for p in root.rglob("*") if p.is_dir())]
        stats = [(f.name, os.stat(f)) for f in files]
        return "|".join([name, *(f"{file}:{stat.st_mtime_ns}:{stat.st_size}" for file, stat in stats)])
    except (OSError, ValueError):
        return f"{name}: missing"


def read_labels(
    images: Tensor, classifier: HostClassifier | None, labels: LabelSet | None, attributes: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, Tensor], str]:
    """Return attributes with their classes, probabilities float32 [N, K] of every image, and their source.

    Raises ValueError unless exactly one of classifier and labels is connected, and for unknown attributes or another number of labels.
    """
    if (classifier is None) == (labels is None):
        raise ValueError("images need one source of labels: connect either a classifier or labels.")
    if labels is not None:
        if len(labels.files) != len(images):
            raise ValueError(
                f"there are {len(labels.files)} labels for {len(images)} images: connect the labels of these images, in order."
            )
        chosen = labels.only(tuple(attributes) or tuple(labels.attributes))
        return dict(chosen.attributes), dict(chosen.probabilities), "; ".join(dict.fromkeys(chosen.sources.values())) or "labels"
    names = tuple(attributes) or tuple(classifier.attributes)
    unknown = next((a for a in names if a not in classifier.attributes), None)
    if unknown is not None:
        raise ValueError(f"the classifier '{classifier.name}' does not read '{unknown}'; it reads: {', '.join(classifier.attributes)}.")
    read = classifier.probabilities(images)
    return {a: classifier.attributes[a] for a in names}, {a: read[a] for a in names}, f"classifier {classifier.name}"


def save_images(
    images: Tensor,
    name: str,
    attributes: Mapping[str, tuple[str, ...]],
    probabilities: Mapping[str, Tensor],
    source: str,
    settings: SaveSettings,
) -> tuple[ImageFolder | None, Saved, list[str]]:
    """Save images with the most probable class of every attribute.

    images [N, H, W, 3] in 0..1.

    Returns the data set (None while it is empty), what was saved, and notes. Interruptible; images saved until then stay. Raises ValueError
    for images that are not finite, if name, splits, target, folder or an earlier set of that name do not fit, and if the output folder
    cannot be written.
    """
    splits = parse_splits(settings.splits)
    folder = dataset_folder(name)
    broken = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(images)} images hold values that are no numbers (the first is image {broken[0]}), and nothing was "
            "saved: their VAE or model broke down, often in half precision."
        )
    target = None if settings.target is None else settings.target.reordered(attributes)
    sure = torch.stack([p.amax(-1) for p in probabilities.values()]).amin(0)
    chosen = [i for i in range(len(images)) if float(sure[i]) >= settings.sure]
    left_out = len(images) - len(chosen)
    notes = [f"{left_out} left out, because their labels are less sure than {settings.sure:g}"] if left_out else []
    try:
        writer = ImageFolderWriter(folder, attributes, settings.class_folder)
        extra = {ORIGIN: settings.origin, SOURCE: source, GRAPH: _keep_graph(folder, settings.graph)}
        items = [
            _item(images[i], {a: attributes[a][int(p[i].argmax())] for a, p in probabilities.items()}, probabilities, i, extra)
            for i in chosen
        ]
        bar = comfy.utils.ProgressBar(max(1, len(items)))

        def each() -> None:
            comfy.model_management.throw_exception_if_processing_interrupted()
            bar.update(1)

        saved = writer.add(items, splits, target, settings.size, each)
    except OSError as error:
        raise ValueError(
            f"the data set cannot be written to {DATASETS_PATH}/{folder.name} ({error.strerror or error}): free space, or "
            "change the rights of that folder."
        ) from error
    unsure = sum(float(sure[i]) < UNSURE_BELOW for i in chosen)
    notes += [f"{unsure} of {len(chosen)} have a label that is less sure than {UNSURE_BELOW:g}"] if unsure else []
    dataset = open_image_folder(folder) if any(writer.rows[s] for s in SPLITS) else None
    return dataset, saved, notes


def load_examples(folder: ImageFolder, attributes: Mapping[str, tuple[str, ...]], size: int) -> Examples:
    """Load the pictures of a set at size x size.

    They are scaled as a classifier scales them. Interruptible.

    Raises ValueError if a picture cannot be read, or if they do not fit into memory.
    """
    needed = len(folder.rows) * 3 * size * size
    if needed > MOST_BYTES:
        raise ValueError(f"{len(folder.rows)} pictures of {size} pixels take {needed / 1e9:.0f} GB of memory: choose a smaller image_size.")
    images = torch.empty(len(folder.rows), 3, size, size, dtype=torch.uint8)
    bar = comfy.utils.ProgressBar(len(folder.rows))
    for i, row in enumerate(folder.rows):
        comfy.model_management.throw_exception_if_processing_interrupted()
        images[i] = _scaled(read_picture(folder.root / row.file), size)
        bar.update(1)
    with torch.inference_mode(False):  # a training cannot use inference tensors
        classes = {a: {c: i for i, c in enumerate(names)} for a, names in attributes.items()}
        labels = {a: torch.tensor([index.get(r.labels.get(a, ""), -1) for r in folder.rows]) for a, index in classes.items()}
        return Examples(dict(attributes), images.clone(), labels, torch.tensor([r.origin == GENERATED for r in folder.rows]))


def in_batches(folder: ImageFolder) -> Iterator[tuple[list[Row], Tensor]]:
    """Yield the rows and pictures of a set in order.

    Pictures IMAGE [B, H, W, 3]; those of a batch have one size.
    """
    rows: list[Row] = []
    pictures: list[Tensor] = []
    for row in folder.rows:
        picture = read_picture(folder.root / row.file)
        if pictures and (picture.shape != pictures[0].shape or len(pictures) >= CHUNK):
            yield rows, torch.stack(pictures)
            rows, pictures = [], []
        rows.append(row)
        pictures.append(picture)
    if pictures:
        yield rows, torch.stack(pictures)


def _scaled(picture: Tensor, size: int) -> Tensor:
    """Scale a picture [H, W, 3] in 0..1 to uint8 [3, size, size]."""
    image = picture.movedim(-1, 0)[None]
    if tuple(image.shape[-2:]) != (size, size):
        image = F.interpolate(image, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
    return (image[0].clamp(0, 1) * 255).round().byte()


def _item(image: Tensor, labels: dict[str, str], probabilities: Mapping[str, Tensor], i: int, extra: Mapping[str, Any]) -> Item:
    pixels = (image[..., :3].detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous().numpy()
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    read = {f"{a}_probability": round(float(p[i].max()), 4) for a, p in probabilities.items()}
    return Item(digest, labels, lambda: _png(pixels), {**read, **extra})


def _png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def _keep_graph(folder: Path, graph: Any) -> str:
    """Save the graph that made images with them.

    Returns its name, or "" if there is no graph or the host saves no metadata.
    """
    if not graph or args.disable_metadata:
        return ""
    text = json.dumps(graph, sort_keys=True, default=str)
    name = hashlib.sha256(text.encode()).hexdigest()[:16]
    path = folder / "graphs" / f"{name}.json"
    if not path.is_file():
        write_text(path, text + "\n")
    return name
