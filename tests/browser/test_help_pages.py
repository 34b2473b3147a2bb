"""Help pages in the real front end: opened from the node as a user does, with the picture loaded; and every picture is served.

What it needs: see conftest.py.
"""

from __future__ import annotations

import re
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from equipoise.tests.equipoise_patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
PAGES = {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "web" / "docs").glob("*.md"))}
OPENED = ("EquipoiseDistributionGuidance", "EquipoiseFindNeuronPath", "EquipoiseLoadQuickstartTextModel", "EquipoiseBalancedPrompts")


@pytest.fixture(scope="module", params=["page_current", "page_floor"])
def server(request: pytest.FixtureRequest) -> Any:
    """The current host, and the oldest that is supported, with the front end that belongs to it."""
    return request.getfixturevalue(request.param)


def fetched(server: Any, path: str) -> bytes:
    with urllib.request.urlopen(f"{server.url}/extensions/equipoise/docs/{path}", timeout=PATIENCE) as answer:
        return answer.read()


def test_every_page_and_its_picture_are_served(server: Any) -> None:
    for node, page in PAGES.items():
        assert fetched(server, f"{node}.md").decode() == page
        (picture,) = re.findall(r"^!\[.+\]\((.+)\)$", page, flags=re.M)
        data = fetched(server, picture)
        assert data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    with pytest.raises(urllib.error.HTTPError):
        fetched(server, "img/EquipoiseNoSuchNode.webp")


def test_help_opens_from_the_node_with_its_picture(script: Any, server: Any, tmp_path: Path) -> None:
    seen = {s["id"]: s for s in script("help.mjs", server.url, f"{tmp_path}/", *OPENED)}
    assert list(seen) == list(OPENED)
    for node, found in seen.items():
        assert found["title"] == PAGES[node].splitlines()[0][2:]
        assert found["headings"] == re.findall(r"^## (.+)$", PAGES[node], flags=re.M)
        (picture,) = found["pictures"]
        assert found["full"] > 1.5 * picture["shown"] and found["closed"], "a click shows the picture in full size"
        assert picture["src"] == f"/extensions/equipoise/docs/img/{node}.webp"
        assert picture["width"] >= 400 and picture["shown"] >= 150 and picture["alt"]
        # the front end asks for a page in the user's language first, and takes this one where there is none
        assert [e for e in found["errors"] if not re.search(rf"/docs/{node}/\w+(-\w+)?\.md\)$", e)] == []
