"""Names that a user gives to what the pack stores: one rule for all of it."""

from __future__ import annotations

import re

_NAME = re.compile(r"\w[\w .,+()=@-]{0,99}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def storable(name: str) -> bool:
    """Whether this is one part of a path, never a way out of a folder, and a name that every system can store (Windows keeps some)."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and not name.endswith((".", " ")) and not _RESERVED.fullmatch(name)
