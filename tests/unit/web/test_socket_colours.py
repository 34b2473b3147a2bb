"""Every socket type of the pack has a colour of its own."""

from __future__ import annotations

import re
from pathlib import Path


def test_every_socket_type_has_a_colour_of_its_own(repository: Path) -> None:
    types = set(re.findall(r'io\.Custom\("(EQUIPOISE_\w+)"\)', (repository / "nodes" / "core" / "sockets.py").read_text(encoding="utf-8")))
    colours = dict(re.findall(r"(EQUIPOISE_\w+): '(#[0-9A-F]{6})'", (repository / "web" / "socket_colours.js").read_text(encoding="utf-8")))
    assert set(colours) == types and len(set(colours.values())) == len(types)
