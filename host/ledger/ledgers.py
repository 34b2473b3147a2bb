"""Ledgers in the host: where they are, which run writes into them, and whose images come to be recorded."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import os
import platform
import uuid
from collections.abc import Iterator, Mapping, Sequence
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
from ...methods.ledger.ledger import Ledger, Reservation, RunKey, SeenImage
from ...methods.ledger.ledger_images import TEXT, Picture, reconcile, save_picture
from ...models.files import write_text
from ..core.files import check_file_name, storable
from ..labels.classifier import HostClassifier

log = logging.getLogger("equipoise")

PLACE, PICTURES = "user/equipoise/ledgers", "output/equipoise/ledgers"
ENDING = ".sqlite"


@dataclass(frozen=True)
class LedgerHandle:
    """What the LEDGER socket carries: which ledger, and the group that images are counted in. No counts: they are read when they are used,
    so that no cached node can hold old ones."""

    name: str
    group: str = ""

    def open(self) -> Ledger:
        """The ledger, for this process. Its methods raise ValueError where the file is none."""
        return Ledger(ledger_path(self.name), this_process(), has_ended, self.group)

    @property
    def folder(self) -> Path:
        """Where its pictures are saved; it need not exist yet."""
        return Path(folder_paths.get_output_directory()) / "equipoise" / "ledgers" / self.name

    def opened(self) -> tuple[Ledger, int]:
        """The ledger, checked, without what a process left that was killed, and with rows for pictures that lost theirs (how many)."""
        ledger = self.open()
        ledger.check()
        ledger.tidy()
        return ledger, reconcile(ledger, self.folder)


def ledgers_root() -> Path:
    """Folder of the ledgers, in the host's user folder; it need not exist yet."""
    return Path(folder_paths.get_user_directory()) / "equipoise" / "ledgers"


def ledger_path(name: str) -> Path:
    """File of a ledger. Raises ValueError for a name that is a path, or that not every system can store."""
    check_file_name(name, "a ledger", PLACE)
    return ledgers_root() / f"{name}{ENDING}"


def ledger_names() -> list[str]:
    """Ledgers that are there."""
    root = ledgers_root()
    return sorted(p.name[: -len(ENDING)] for p in root.glob(f"*{ENDING}") if storable(p.name[: -len(ENDING)])) if root.is_dir() else []


def existing_ledger(name: str) -> LedgerHandle:
    """A ledger that is there. Raises ValueError, naming those that are, where it is not."""
    name = name.strip()
    if not ledger_path(name).is_file():
        raise ValueError(f"there is no ledger '{name}'; there are: {', '.join(ledger_names()) or 'none yet'}.")
    return LedgerHandle(name)


def ledgers_fingerprint() -> str:
    """Changes whenever any ledger does."""
    found = []
    for path in sorted(ledgers_root().glob("*")) if ledgers_root().is_dir() else []:
        if path.name.endswith((ENDING, f"{ENDING}-wal")):
            stat = path.stat()
            found.append(f"{path.name}:{stat.st_mtime_ns}:{stat.st_size}")
    return "|".join(found)


# -- who is at work ----------------------------------------------------------------------------------------------------------------------


def this_process() -> str:
    """A name of this process that no other on this machine has, has had or will have."""
    return f"{platform.node()}/{os.getpid()}/{psutil.Process().create_time():.2f}"


def has_ended(owner: str) -> bool:
    """Whether the process of that name has ended; False where that cannot be told (one of another machine)."""
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
    """The queued prompt and the node that the host executes now; None outside of a prompt. An item of a list has a key of its own."""
    context = get_executing_context()
    if context is None:
        return None
    return RunKey(context.prompt_id, context.node_id + (f"#{context.list_index}" if context.list_index else ""))


class LedgerRun:
    """One sampling run's part in a ledger: it reserves when it is asked for quotas, is finished when sampling ended well, and releases.

    ``again``: the run begins with images and not with nothing, so that another node of the prompt may have drawn them.
    """

    def __init__(self, handle: LedgerHandle, seed: int = 0, again: bool = False) -> None:
        self._ledger, self._seed, self._again = handle.open(), seed, again
        self.key = running_node() or RunKey(f"script-{uuid.uuid4().hex}", "")
        self._reserved: tuple[TargetDistribution, Reservation] | None = None

    def quotas(self, target: TargetDistribution, images: int, seed: int) -> list[int]:
        """Images per cell by what the ledger has counted; reserved until :meth:`finish` or :meth:`release`."""
        reservation = self._ledger.reserve(target, self.key, images, seed, self._seed, self._again)
        self._reserved, self.key = (target, reservation), reservation.key
        return reservation.counts

    def finish(self, cells: Tensor | Sequence[int] | None, target: TargetDistribution | None = None) -> None:
        """Sampling ended well, and image i became cell ``cells[i]``. ``target``: where they were decided without asking for quotas, by a
        run that was cut off."""
        if self._reserved is None and target is not None and cells is not None:
            self._reserved = target, Reservation(self.key, 0, [])
        if self._reserved is None or cells is None:
            return
        (target, reservation), self._reserved = self._reserved, None
        self._ledger.confirm(target, reservation, [int(c) for c in cells], self._seed)

    def release(self) -> None:
        """Drop what was reserved and not finished. Never raises: it stands where another error may be on its way."""
        if self._reserved is None:
            return
        (target, reservation), self._reserved = self._reserved, None
        try:
            self._ledger.release(target, reservation)
        except ValueError as error:
            log.warning("What a failed run had reserved stays reserved until this ComfyUI ends: %s", error)


# -- recording ---------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recorded:
    """``files``: names in the ledger's folder; ``seen``: class names per image in the order of the target; ``assigned``: the same, None
    where nothing is known; ``found``: pictures whose row had been lost."""

    files: list[str]
    seen: list[tuple[str, ...]]
    assigned: list[tuple[str, ...] | None]
    found: int


def record_images(
    images: Tensor,
    handle: LedgerHandle,
    target: TargetDistribution,
    classifier: HostClassifier,
    assigned: str = "",
    graph: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Recorded:
    """Save images [N, H, W, C] in 0..1 and count what the classifier sees in them: each file by rename, then its row.

    ``assigned``: what Distribution Guidance KSampler says of them; ``graph``: the queued prompt in API form. Interruptible; what was saved
    by then stays. Raises ValueError where images, target, classifier and ``assigned`` do not belong together, or nothing can be written.
    """
    broken = [i for i, image in enumerate(images) if not torch.isfinite(image).all()]
    if broken:
        raise ValueError(
            f"{len(broken)} of {len(images)} images hold values that are no numbers (the first is image {broken[0]}), and nothing was "
            "recorded: their VAE or model broke down, often in half precision."
        )
    try:
        ordered = target.reordered(classifier.attributes)
    except ValueError as error:
        raise ValueError(f"The classifier '{classifier.name}' cannot record this target: {error}") from error
    given, certain = read_assigned(assigned, ordered, len(images))
    read = classifier.probabilities(images)
    best = [read[a].argmax(-1).tolist() for a in ordered.attributes]
    seen = [tuple(names[k] for names, k in zip(ordered.classes, image, strict=True)) for image in zip(*best, strict=True)]
    pixels = [_pixels(image) for image in images]
    digests = [hashlib.sha256(f"{p.shape}".encode() + p.tobytes()).hexdigest() for p in pixels]
    own = running_node() or RunKey(f"script-{uuid.uuid4().hex}", "")
    ledger, found = handle.opened()
    claim = ledger.claim(ordered, own, drawn_by(graph, own), digests, certain)
    prompt_hash = hashlib.sha256(json.dumps(graph, sort_keys=True, default=str).encode()).hexdigest() if graph else ""
    more = {} if args.disable_metadata else {"prompt": graph, **(extra or {})}
    epoch, files, classes = ledger.epoch, [], []
    bar = comfy.utils.ProgressBar(len(images))
    first = min(claim.known, default=0)
    for i, digest in enumerate(digests):
        comfy.model_management.throw_exception_if_processing_interrupted()
        was, seed, file = claim.known.get(first + i, (None, "", None))
        became = given[i] if given else was
        image = SeenImage(first + i, seen[i], became, seed, prompt_hash, file)
        picture = Picture(digest, lambda text, p=pixels[i]: _png(p, {**more, TEXT: text}))
        try:
            files.append(save_picture(ledger, epoch, handle.folder, ordered, claim.key, picture, image))
        except OSError as error:
            raise ValueError(
                f"image {i} cannot be saved in {PICTURES}/{handle.name} ({error.strerror or error}), and is not counted: free space, or "
                "change the rights of that folder."
            ) from error
        classes.append(became)
        bar.update(1)
    return Recorded(files, seen, classes, found)


def read_assigned(text: str, target: TargetDistribution, n: int) -> tuple[list[tuple[str, ...]] | None, RunKey | None]:
    """Classes per image, in the order of the target, and the run, from the output 'assigned' of a sampler. (None, None) for "".

    Raises ValueError where it is no such text, or speaks of other attributes or another number of images.
    """
    if not text.strip():
        return None, None
    try:
        told = json.loads(text)
        attributes, names, run = told["attributes"], told["assigned"], told.get("run")
        key = None if run is None else RunKey(str(run["prompt"]), str(run["node"]))
        if sorted(attributes) != sorted(target.attributes):
            raise ValueError(f"it speaks of {', '.join(map(str, attributes))}, and the target of {', '.join(target.attributes)}")
        if names is None:
            return None, key
        if len(names) != n:
            raise ValueError(f"it speaks of {len(names)} images, and {n} are connected")
        place = [attributes.index(a) for a in target.attributes]
        known = {"/".join(cell[place.index(i)] for i in range(len(place))): cell for cell in target.cells}
        return [known[name] for name in names], key
    except KeyError as error:
        raise ValueError(
            f"'assigned' holds no {error}, or a class that the classifier lacks: connect the sampler's output of that name."
        ) from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"'assigned' does not belong to these images ({error}): connect the output of the sampler that drew them."
        ) from error


def drawn_by(graph: Any, own: RunKey) -> list[RunKey]:
    """Nodes of a queued prompt from which the images of a node may come, the nearest first."""
    node, hash_, index = own.node.partition("#")
    return [RunKey(own.run, f"{name}{hash_}{index}") for name in _before(graph, node)]


def _before(graph: Any, node: str) -> Iterator[str]:
    """Ids of the nodes that lie before one, by the input 'images' of it, the nearest first."""
    if not isinstance(graph, Mapping):
        return
    inputs = graph.get(node, {}).get("inputs", {})
    level, met = [inputs.get("images")], set()
    while level:
        found = []
        for link in level:
            if isinstance(link, (list, tuple)) and len(link) == 2 and str(link[0]) in graph and str(link[0]) not in met:
                met.add(str(link[0]))
                yield str(link[0])
                found += graph[str(link[0])].get("inputs", {}).values()
        level = found


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
    """Write a ledger's rows as CSV beside its pictures' folder; the file, and how many rows. Raises ValueError where that cannot be."""
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
            f"the ledger cannot be written to {PICTURES} ({error.strerror or error}): free space, or change the rights of that folder."
        ) from error
    return path, len(rows)
