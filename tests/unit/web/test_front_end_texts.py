"""Texts of the front-end extension: what the code asks for, and what translators are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def test_translators_are_given_every_text_with_its_english(load_module: Callable[[Path, str], Any], repository: Path) -> None:
    """Also that every text stands in the code as a plain string beside its key; see ``front_end`` there."""
    locales = load_module(repository / "tools" / "equipoise_locales.py", "equipoise_locales_of_texts")
    known = json.loads((repository / "locales" / "en" / "main.json").read_text(encoding="utf-8"))["equipoise"]
    assert known == locales.front_end(), "run: python tools/equipoise_locales.py"
    assert len(known) > 20
