"""The pictures of a ledger: each tells in its PNG text whose row it belongs to, so that one whose row was lost gets it back."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...models.files import write_bytes
from ..core.targets import TargetDistribution
from .ledger import Ledger, RunKey, SeenImage, cell_text, parse_key, target_key

TEXT = "equipoise_ledger"
"""Name of the PNG text."""
LONGEST = 1 << 20
STALE = 3600
"""Seconds after which half a file is taken for one that nobody goes on writing."""
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Picture:
    """An image to be saved."""

    pixels: str
    """Digest of the pixels."""
    png: Callable[[str], bytes]
    """Makes the bytes of the PNG file, with a text under the name :data:`TEXT`."""


def file_name(target: TargetDistribution, group: str, key: RunKey, index: int) -> str:
    """Make the file name of a new picture from its time, ledger and run.

    The run is hashed, as its id may be any text.
    """
    run = hashlib.sha256(json.dumps([target_key(target, group), key.run, key.node]).encode()).hexdigest()[:12]
    return f"{time.strftime('%Y%m%d-%H%M%S')}_{run}_{index:04d}.png"


def save_picture(
    ledger: Ledger, epoch: str, folder: Path, target: TargetDistribution, key: RunKey, picture: Picture, image: SeenImage
) -> str:
    """Save a picture and its row in the ledger; return the file's name.

    The picture is written under a temporary name and renamed before the row is written. A picture that is recorded again keeps its file.

    Killed in between, the picture is found by :func:`reconcile`. Raises OSError where the file cannot be written, and leaves no half of it.
    """
    name = image.file or file_name(target, ledger.group, key, image.place)
    record = {
        "ledger": epoch, "target": target_key(target, ledger.group), "run": key.run, "node": key.node, "place": image.place,
        "assigned": None if image.assigned is None else cell_text(target, image.assigned), "seen": cell_text(target, image.seen),
        "seed": image.seed, "prompt_hash": image.prompt_hash, "pixels": picture.pixels,
    }  # fmt: skip
    data = picture.png(json.dumps(record))
    write_bytes(folder / name, data)
    digest = hashlib.sha256(data).hexdigest()
    ledger.record(
        target,
        key,
        SeenImage(image.place, image.seen, image.assigned, image.seed, image.prompt_hash, name, digest, picture.pixels),
    )
    return name


def reconcile(ledger: Ledger, folder: Path) -> int:
    """Give a row to every picture of this ledger that has none.

    Also removes halves of files that nobody goes on writing. Returns the number of new rows.
    """
    if not folder.is_dir():
        return 0
    known, epoch, added = ledger.files(), ledger.epoch, 0
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if not entry.is_file(follow_symlinks=False):
            continue
        if entry.name.endswith(".partial"):
            if entry.stat().st_mtime < time.time() - STALE:
                Path(entry.path).unlink(missing_ok=True)
        elif entry.name.endswith(".png") and entry.name not in known:
            added += _adopt(ledger, epoch, Path(entry.path))
    return added


def _adopt(ledger: Ledger, epoch: str, path: Path) -> bool:
    """Add the row of a picture from the text in its file.

    The text is used only if it has the right form, and belongs to this ledger since its last reset.
    """
    try:
        record = json.loads(png_text(path, TEXT) or "null")
        if not isinstance(record, dict) or record.get("ledger") != epoch:
            return False
        target, group = parse_key(record["target"])
        cells = [record["seen"], *([record["assigned"]] if record["assigned"] is not None else [])]
        texts = [record[name] for name in ("run", "node", "seed", "prompt_hash", "pixels")]
        right = target_key(target, group) == record["target"] and all(_is_cell(cell, target) for cell in cells)
        right = right and all(isinstance(t, str) and len(t) < 1000 for t in texts)
        if not right or type(record["place"]) is not int or not 0 <= record["place"] < 2**31:
            return False
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    image = SeenImage(record["place"], (record["seen"],), None, record["seed"], record["prompt_hash"], path.name, digest, record["pixels"])
    return ledger.adopt(record["target"], RunKey(record["run"], record["node"]), image, record["assigned"])


def _is_cell(text: object, target: TargetDistribution) -> bool:
    names = json.loads(text) if isinstance(text, str) else None
    right = isinstance(names, list) and len(names) == len(target.attributes) and all(isinstance(n, str) for n in names)
    return right and json.dumps(names, separators=(",", ":")) == text


def png_text(path: Path, name: str) -> str | None:
    """Read a text of a PNG file, from the part before its pixels.

    None if there is no such text, or the file is no PNG.
    """
    with path.open("rb") as stream:
        if stream.read(8) != _SIGNATURE:
            return None
        while True:
            head = stream.read(8)
            if len(head) < 8:
                return None
            (length,), kind = struct.unpack(">I", head[:4]), head[4:]
            if kind in (b"IDAT", b"IEND"):
                return None
            if kind != b"tEXt" or length > LONGEST:
                stream.seek(length + 4, os.SEEK_CUR)
                continue
            keyword, _, text = stream.read(length).partition(b"\x00")
            stream.seek(4, os.SEEK_CUR)
            if keyword == name.encode("latin-1"):
                return text.decode("latin-1")
    return None
