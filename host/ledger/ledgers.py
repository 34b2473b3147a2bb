"""Ledgers in the host: where they lie, which node is at work, and the recording of images in them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
import folder_paths
import numpy as np
import psutil
import torch
from comfy.cli_args import args
from comfy_execution.utils import get_executing_context
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from ...methods.core.targets import TargetDistribution
from ...methods.ledger.ledger import Ledger, RunKey, SeenImage
from ...methods.ledger.ledger_images import TEXT, Picture, reconcile, save_picture
from ...models.files import write_text
from ..core.files import check_file_name
from ..labels.classifier import HostClassifier
from .assigned import read_assigned

log = logging.getLogger("equipoise")

LEDGERS_FOLDER, PICTURES_FOLDER = "user/equipoise/ledgers", "output/equipoise/ledgers"
LEDGER_SUFFIX = ".sqlite"


@dataclass(frozen=True)
class LedgerHandle:
    """Name a ledger and a group in it; this is what the LEDGER socket carries.

    It has no counts. They are read when they are used, so that no cached node can have old ones.
    """

    name: str
    """Name of the ledger."""
    group: str = ""
    """Group in which images are counted."""

    def open(self) -> Ledger:
        """Open the ledger for this process.

        Its methods raise ValueError where the file is not a ledger.
        """
        return Ledger(ledger_path(self.name), this_process(), has_ended, self.group)

    @property
    def folder(self) -> Path:
        """Return the folder of its pictures, which need not exist yet."""
        return Path(folder_paths.get_output_directory()) / "equipoise" / "ledgers" / self.name

    def opened(self) -> tuple[Ledger, int]:
        """Open the ledger and repair what a killed process left.

        Return it with the number of pictures whose rows were restored.
        """
        ledger = self.open()
        ledger.check()
        ledger.tidy()
        return ledger, reconcile(ledger, self.folder)


def ledgers_root() -> Path:
    """Return the folder of the ledgers in ComfyUI's user folder, which need not exist yet."""
    return Path(folder_paths.get_user_directory()) / "equipoise" / "ledgers"


def ledger_path(name: str) -> Path:
    """Return the file of a ledger.

    Raises ValueError for a name that is a path, or that not every system can store.
    """
    check_file_name(name, "a ledger", LEDGERS_FOLDER)
    return ledgers_root() / f"{name}{LEDGER_SUFFIX}"


def ledgers_fingerprint() -> str:
    """Return a text that changes whenever any ledger does."""
    facts = []
    for path in sorted(ledgers_root().glob("*")) if ledgers_root().is_dir() else []:
        if path.name.endswith((LEDGER_SUFFIX, f"{LEDGER_SUFFIX}-wal")):
            stat = path.stat()
            facts.append(f"{path.name}:{stat.st_mtime_ns}:{stat.st_size}")
    return "|".join(facts)


# -- who is at work ----------------------------------------------------------------------------------------------------------------------


def this_process() -> str:
    """Return a name of this process that no other process of this machine ever has."""
    return f"{platform.node()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def has_ended(owner: str) -> bool:
    """Check whether the process of that name has ended.

    False where that is not known (a process of another machine).
    """
    parts = owner.rsplit("/", 2)
    if len(parts) != 3 or parts[0] != platform.node() or not parts[1].isdecimal():
        return False
    try:
        return f"{psutil.Process(int(parts[1])).create_time():.2f}" != parts[2]
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def running_node() -> RunKey | None:
    """Return the prompt and the node that ComfyUI executes now.

    None outside of a prompt. Every item of a list has its own key.
    """
    context = get_executing_context()
    if context is None:
        return None
    return RunKey(context.prompt_id, context.node_id + (f"#{context.list_index}" if context.list_index else ""))


# -- recording ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """Report what was recorded."""

    files: list[str]
    """Names of the pictures in the ledger's folder."""
    seen: list[tuple[str, ...]]
    """Class names that the classifier read of every image, in the order of the target."""
    assigned: list[tuple[str, ...] | None]
    """Class names that every image was assigned; None where they are not known."""
    restored: int
    """Number of pictures whose lost rows were restored."""


def record_attributes(
    images: Tensor,
    handle: LedgerHandle,
    target: TargetDistribution,
    classifier: HostClassifier,
    assigned: str = "",
    graph: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Recorded:
    """Save images [N, H, W, C] in 0..1 and count their classes.

    The classifier reads the classes.
    Every file is written by rename, then its row. ``assigned``: output of that name of Distribution Guidance KSampler. ``graph``: the
    queued prompt in API form. ``extra``: more metadata for the pictures. Interruptible; what was saved by then stays.

    Raises ValueError where images, target, classifier and ``assigned`` do not belong together, or nothing can be written.
    """
    broken = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(images)} images have values that are not numbers (the first is image {broken[0]}), so nothing was "
            "recorded: their VAE or model failed, often because of half precision."
        )
    try:
        ordered = target.reordered(classifier.attributes)
    except ValueError as error:
        raise ValueError(f"The classifier '{classifier.name}' cannot record this target: {error}") from error
    named, certain = read_assigned(assigned, ordered, len(images))
    read = classifier.probabilities(images)
    best = [read[a].argmax(-1).tolist() for a in ordered.attributes]
    seen = [tuple(names[k] for names, k in zip(ordered.classes, image, strict=True)) for image in zip(*best, strict=True)]
    pixels = [_pixels(image) for image in images]
    digests = [hashlib.sha256(f"{p.shape}".encode() + p.tobytes()).hexdigest() for p in pixels]
    own = running_node() or RunKey(f"script-{uuid.uuid4().hex}", "")
    ledger, restored = handle.opened()
    claim = ledger.claim(ordered, own, drawn_by(graph, own), digests, certain)
    prompt_hash = hashlib.sha256(json.dumps(graph, sort_keys=True, default=str).encode()).hexdigest() if graph else ""
    metadata = {} if args.disable_metadata else {"prompt": graph, **(extra or {})}
    epoch, files, classes = ledger.epoch, [], []
    bar = comfy.utils.ProgressBar(len(images))
    first = min(claim.known, default=0)
    for i, digest in enumerate(digests):
        comfy.model_management.throw_exception_if_processing_interrupted()
        was, seed, file = claim.known.get(first + i, (None, "", None))
        became = named[i] if named else was
        image = SeenImage(first + i, seen[i], became, seed, prompt_hash, file)
        picture = Picture(digest, lambda text, p=pixels[i]: _png(p, {**metadata, TEXT: text}))
        try:
            files.append(save_picture(ledger, epoch, handle.folder, ordered, claim.key, picture, image))
        except OSError as error:
            raise ValueError(
                f"image {i} cannot be saved in {PICTURES_FOLDER}/{handle.name} ({error.strerror or error}), and is not counted: free some "
                "disk space, or change the rights of that folder."
            ) from error
        classes.append(became)
        bar.update(1)
    return Recorded(files, seen, classes, restored)


def drawn_by(graph: Any, own: RunKey) -> list[RunKey]:
    """List the nodes that may have made a node's images, nearest first."""
    node, hash_, index = own.node.partition("#")
    return [RunKey(own.run, f"{name}{hash_}{index}") for name in _before(graph, node)]


def _before(graph: Any, node: str) -> Iterator[str]:
    """Yield the nodes before the input 'images' of one, nearest first."""
    if not isinstance(graph, Mapping):
        return
    inputs = graph.get(node, {}).get("inputs", {})
    level, met = [inputs.get("images")], set()
    while level:
        next_level = []
        for link in level:
            if isinstance(link, (list, tuple)) and len(link) == 2 and str(link[0]) in graph and str(link[0]) not in met:
                met.add(str(link[0]))
                yield str(link[0])
                next_level += graph[str(link[0])].get("inputs", {}).values()
        level = next_level


def _pixels(image: Tensor) -> np.ndarray:
    return (image[..., :3].detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8).contiguous().numpy()


def _png(pixels: np.ndarray, texts: Mapping[str, Any]) -> bytes:
    info, stream = PngInfo(), io.BytesIO()
    for name, value in texts.items():
        if value is not None:
            info.add_text(name, value if isinstance(value, str) else json.dumps(value))
    Image.fromarray(pixels).save(stream, format="PNG", pnginfo=info, compress_level=4)
    return stream.getvalue()


# -- reset and export --------------------------------------------------------------------------------------------------------------------

COLUMNS = (
    "time", "attributes", "target", "group", "assigned", "seen", "state", "seed", "prompt_hash", "run", "node", "place", "file",
    "file_hash",
)  # fmt: skip


def export_ledger(handle: LedgerHandle) -> tuple[Path, int]:
    """Write the rows of a ledger as CSV next to its pictures' folder.

    Return the file and the number of rows.
    Raises ValueError where it cannot be written.
    """
    ledger, _ = handle.opened()
    rows, stream = ledger.rows(), io.StringIO(newline="")
    writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path = handle.folder.parent / f"{handle.name}.csv"
    try:
        write_text(path, stream.getvalue())
    except OSError as error:
        raise ValueError(
            f"the ledger cannot be written to {PICTURES_FOLDER} ({error.strerror or error}): free some disk space, or change the rights of "
            "that folder."
        ) from error
    return path, len(rows)


def reset_ledger(handle: LedgerHandle, images: int) -> str:
    """Delete the rows of a ledger that counts exactly this many images; say what was done.

    The pictures stay. A run that added images deletes nothing, because a queue of single images reaches every number some day.
    """
    ledger, _ = handle.opened()
    own = running_node()
    added = ledger.images(own.run) if own else 0
    if added:
        return (
            f"the ledger '{handle.name}' was left as it is: it counts {ledger.images()} images, {added} of them from this run. A run that "
            "adds images cannot reset it: bypass Record Attributes, or use a graph with Balance Ledger and Ledger Report alone."
        )
    if images and ledger.reset(images):
        return f"the ledger '{handle.name}' has forgotten {images} images; their pictures are still in {PICTURES_FOLDER}/{handle.name}."
    return f"the ledger '{handle.name}' was left as it is: it counts {ledger.images()} images, and {images} were named."
