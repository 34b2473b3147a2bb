"""Every socket type of the pack has a colour of its own, which people with red-green blindness can tell apart too."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

VISIONS = {
    "most people": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
}
"""What each sees of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""
XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
NODES = {"dark palette": "#353535", "light palette": "#FFFFFF"}
"""Bodies of nodes."""


@pytest.fixture
def colours(repository: Path) -> dict[str, str]:
    """Socket type -> colour."""
    return dict(re.findall(r"(EQUIPOISE_\w+): '(#[0-9A-F]{6})'", (repository / "web" / "socket_colours.js").read_text(encoding="utf-8")))


def linear(colour: str) -> np.ndarray:
    """Linear RGB of "#RRGGBB"."""
    part = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIELAB of linear RGB."""
    t = XYZ @ rgb.clip(0, 1) / XYZ.sum(1)
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_every_socket_type_has_a_colour_of_its_own(repository: Path, colours: dict[str, str]) -> None:
    types = set(re.findall(r'io\.Custom\("(EQUIPOISE_\w+)"\)', (repository / "nodes" / "core" / "sockets.py").read_text(encoding="utf-8")))
    assert set(colours) == types and len(set(colours.values())) == len(types)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_colours_can_be_told_apart(colours: dict[str, str], vision: str) -> None:
    """A CIELAB distance of 2 is just visible when two patches touch."""
    seen = {name: lab(VISIONS[vision] @ linear(colour)) for name, colour in colours.items()}
    assert min((float(np.linalg.norm(seen[a] - seen[b])), a, b) for a, b in combinations(seen, 2)) > (14,)


@pytest.mark.parametrize("palette", NODES)
def test_a_slot_stands_out_from_its_node(colours: dict[str, str], palette: str) -> None:
    node = XYZ[1] @ linear(NODES[palette]) + 0.05
    for name, colour in colours.items():
        slot = XYZ[1] @ linear(colour) + 0.05
        assert max(slot / node, node / slot) >= 2, name
