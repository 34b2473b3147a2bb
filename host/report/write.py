"""Write reports as numbered files below the host's output folder. Files are complete and never overwrite others."""

from __future__ import annotations

import os
import re
from pathlib import Path

import folder_paths

from ..core.files import check_file_name

PLACE = "output/equipoise/reports"


def reports_root() -> Path:
    """Return the folder of the reports, which may not exist yet."""
    return Path(folder_paths.get_output_directory()) / "equipoise" / "reports"


def check_place(name: str) -> None:
    """Raise ValueError if a report cannot be written under this name.

    The name is a path, or the folder cannot be written.

    Called before anything is measured.
    """
    _stem(name)
    root = reports_root()
    try:
        root.mkdir(parents=True, exist_ok=True)
        probe = root / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(_unwritable(error)) from error


def write_report(name: str, document: str) -> Path:
    """Write NAME_00001.html, or the next number that is free.

    Raises ValueError where the folder cannot be written.
    """
    stem, root = _stem(name), reports_root()
    partial = root / f".{stem}.{os.getpid()}.partial"
    try:
        root.mkdir(parents=True, exist_ok=True)
        partial.write_text(document, encoding="utf-8")
        return _named(partial, root, stem)
    except OSError as error:
        raise ValueError(_unwritable(error)) from error
    finally:
        partial.unlink(missing_ok=True)


def shown_path(path: Path) -> str:
    """Return a report's path as users know it, such as "output/equipoise/reports/NAME_00001.html"."""
    return f"{PLACE}/{path.name}"


def _named(partial: Path, root: Path, stem: str) -> Path:
    """Rename a complete file to the first free number.

    Another process may take a number in the meantime.
    """
    matches = (re.fullmatch(rf"{re.escape(stem)}_(\d+)\.html", p.name) for p in root.glob("*.html"))
    number = 1 + max((int(m[1]) for m in matches if m), default=0)
    while True:
        path = root / f"{stem}_{number:05d}.html"
        try:
            os.link(partial, path)
            return path
        except FileExistsError:
            number += 1
        except OSError:  # a file system without hard links
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                number += 1
                continue
            os.replace(partial, path)
            return path


def _stem(name: str) -> str:
    stem = name.strip()
    check_file_name(stem, "a report", PLACE)
    return stem


def _unwritable(error: OSError) -> str:
    why = error.strerror or error
    return f"the report cannot be written to {PLACE} ({why}): make the folder writable, or start ComfyUI with another --output-directory."
