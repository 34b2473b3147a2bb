"""Colours of sockets, and the search of the node menu, in the real front ends of both supported hosts. What it needs: see conftest.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

WORDS = ("women", "gender", "diversity", "same face", "wildcard")


def check(script: Any, server: Any, renderer: str, repository: Path, folder: Path) -> dict[str, list[str]] | None:
    """Look at the sockets of an ADP and a target; return what the words find."""
    (did,) = script("menu.mjs", server.url, renderer, folder / renderer, *WORDS)
    assert not [e for e in did["errors"] if "quipoise" in e]
    table = dict(re.findall(r"EQUIPOISE_(\w+): '(#\w+)'", (repository / "web" / "socket_colours.js").read_text(encoding="utf-8")))
    for palette, places in did["places"].items():
        with Image.open(folder / f"{renderer}_{palette}.png") as picture:
            seen = ["#{:02X}{:02X}{:02X}".format(*picture.getpixel((round(x), round(y)))[:3]) for x, y in places]
        assert seen == [table["ADP"], table["TARGET"]], palette
    return did["found"]


@pytest.mark.parametrize("renderer", ["classic", "vue"])
def test_sockets_and_search_of_the_current_host(script: Any, page_current: Any, repository: Path, tmp_path: Path, renderer: str) -> None:
    found = check(script, page_current, renderer, repository, tmp_path)
    assert found is not None
    for word in WORDS:
        assert "EquipoiseBalancedPrompts" in found[word] and "EquipoiseTargetDistribution" in found[word], word
        if word != "wildcard":
            assert "EquipoiseDistributionGuidance" in found[word], word


def test_sockets_of_the_oldest_host(script: Any, page_floor: Any, repository: Path, tmp_path: Path) -> None:
    check(script, page_floor, "classic", repository, tmp_path)
