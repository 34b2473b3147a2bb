"""locales/ in the real front ends of both supported hosts: what nodes are called in each language, and that English names find them.

What it needs: see conftest.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh", "ja", "ko", "es", "de", "fr")


def seen(script: Any, server: Any, locales: Path) -> dict[str, Any]:
    """What the script says of every language."""
    found = {s["language"]: s for s in script("locales.mjs", server.url, locales, *LANGUAGES)}
    assert list(found) == list(LANGUAGES) and all(s["nodes"] > 60 for s in found.values())
    return found


def test_the_current_front_end(script: Any, page_current: Any, repository: Path) -> None:
    found = seen(script, page_current, repository / "locales")
    assert all(s["shown"] == language for language, s in found.items() if language != "de")  # it has no German: there it shows English


def test_the_oldest_front_end(script: Any, page_floor: Any, repository: Path) -> None:
    found = seen(script, page_floor, repository / "locales")
    assert all(s["shown"] == language for language, s in found.items())
