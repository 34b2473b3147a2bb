"""Folders of the host that a test empties."""

from __future__ import annotations

import shutil
from pathlib import Path


def remove_folders(*folders: Path) -> None:
    """Remove folders of the host, and what the host remembers of their files.

    The host keeps lists of the files in its models folders. It fails on a folder of such a list that is gone.
    """
    import folder_paths

    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    folder_paths.filename_list_cache.clear()
