"""Texts of the front-end extension: what the code asks for, and what translators are given."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = sorted((ROOT / "web").glob("*.js"))
CALL = re.compile(r"""\btext\(\s*(['"])([\w.]+)\1,\s*(['"])((?:(?!\3)[^\\]|\\.)*)\3""")
KNOWN = json.loads((ROOT / "locales" / "en" / "main.json").read_text(encoding="utf-8"))["equipoise"]


def asked(script: Path) -> dict[str, str]:
    """Key -> English, of every call."""
    code = re.sub(r"^\s*(//|\*).*$", "", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {key: re.sub(r"\\(.)", r"\1", english) for _, key, _, english in CALL.findall(code)}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_every_text_is_known_with_its_english(script: Path) -> None:
    for key, english in asked(script).items():
        assert KNOWN.get(key) == english, f"{script.name}: locales/en/main.json has '{KNOWN.get(key)}' for {key}, the code '{english}'."


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_no_call_is_overlooked(script: Path) -> None:
    """Keys and English stand in the call itself, so that they can be found."""
    code = re.sub(r"^\s*(//|\*).*$", "", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
    calls = len(re.findall(r"(?<![\w.])text\(", code)) - len(re.findall(r"function text\(", code))
    assert calls == len(CALL.findall(code))


def test_no_key_is_left_over() -> None:
    used = {key for script in SCRIPTS for key in asked(script)}
    assert set(KNOWN) <= used
