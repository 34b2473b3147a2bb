"""A ledger file that is damaged, that lies, or whose disk is full: answered in a sentence, and left as it is."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.ledger.ledger import Ledger, RunKey, SeenImage
from equipoise.methods.ledger.ledger_images import Picture, reconcile, save_picture
from equipoise_mutations import ODD_VALUES, bad_input, changed_bytes
from hypothesis import given
from hypothesis import strategies as st

HALF = parse_target("eyeglasses: yes=0.5, no=0.5", {"eyeglasses": ("no", "yes")})
KEY = RunKey("run 0", "4")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equipoise.methods.ledger.ledger.SYNCHRONOUS", "OFF")


def filled(path: Path, folder: Path) -> Ledger:
    """A ledger with five recorded images, one made and one reserved."""
    ledger = Ledger(path, "me")
    for i in range(5):
        record(ledger, folder, RunKey(f"run {i}", "4"), ("no", "yes")[i % 2])
    reservation = ledger.reserve(HALF, RunKey("made", "4"), 1, 0)
    ledger.confirm(HALF, reservation, [0])
    ledger.reserve(HALF, RunKey("reserved", "4"), 1, 0)
    return ledger


def record(ledger: Ledger, folder: Path, key: RunKey, seen: str, file: str | None = None) -> str:
    """Save a picture of a few bytes, and its row."""
    picture = Picture(hashlib.sha256(key.run.encode()).hexdigest(), lambda text: b"\x89PNG\r\n\x1a\n" + text.encode())
    return save_picture(ledger, ledger.epoch, folder, HALF, key, picture, SeenImage(0, (seen,), (seen,), "3", "hash", file))


def used(path: Path, folder: Path) -> str:
    """Everything that nodes do with a ledger; "" where all of it went, else the refusal, which is to be a sentence that names the file."""
    ledger = Ledger(path, "me")
    try:
        ledger.check()
        ledger.tidy()
        reconcile(ledger, folder)
        ledger.balance_of(HALF)
        ledger.rows()
        claim = ledger.claim(HALF, RunKey("new", "9"), [KEY], ["0" * 64])
        ledger.reserve(HALF, RunKey("new", "4"), 2, 1)
        record(ledger, folder, claim.key, "yes", claim.known.get(0, (None, "", None))[2])
    except ValueError as error:
        said = str(error)
        assert "\n" not in said and said.endswith(".") and 30 < len(said) < 800 and "ledger" in said, said
        return said
    return ""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger of few rows."""
    place = tmp_path_factory.mktemp("whole")
    filled(place / "l.sqlite", place / "pictures")
    return place / "l.sqlite"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Folders that are new, as many as are asked for."""
    place, numbers = tmp_path_factory.mktemp("rooms"), itertools.count()

    def new() -> Path:
        folder = place / str(next(numbers))
        folder.mkdir()
        return folder

    return new


@bad_input(150)
@given(st.data())
def test_a_damaged_ledger_is_refused_in_words_or_works(whole: Path, room: Callable[[], Path], data: Any) -> None:
    place = room()
    content = changed_bytes(data.draw, whole.read_bytes())
    (place / "l.sqlite").write_bytes(content)
    said = used(place / "l.sqlite", place / "pictures")
    if "damaged" in said or "another program" in said:
        assert (place / "l.sqlite").read_bytes()[:100] == content[:100], "it is left as it is"
    assert {p.parent for p in place.rglob("*.png")} <= {place / "pictures"}


ODD = [*(v for v in ODD_VALUES if not isinstance(v, (list, dict))), '["yes"', "[]", "[1]", '["maybe"]', '["yes","no"]', "../../x.png",
       "/tmp/x.png", "a\\b.png", "pictures", b"\xff\x00", "x" * 3000]  # fmt: skip
COLUMNS = ("run", "node", "place", "time", "state", "owner", "seed", "prompt_hash", "assigned", "seen", "file", "file_hash", "pixels")


@bad_input(150)
@given(column=st.sampled_from(COLUMNS), value=st.sampled_from(range(len(ODD))), row=st.integers(1, 7))
def test_rows_that_lie_lead_nowhere(whole: Path, room: Callable[[], Path], column: str, value: int, row: int) -> None:
    place = room()
    path = place / "l.sqlite"
    path.write_bytes(whole.read_bytes())
    try:
        with sqlite3.connect(path) as db:
            number = ODD[value] if not isinstance(ODD[value], int) else max(-(2**63), min(ODD[value], 2**63 - 1))
            db.execute(f"UPDATE images SET {column} = ? WHERE id = ?", (number, row))
        db.close()
    except sqlite3.Error:
        return  # the tables themselves refuse it
    used(path, place / "pictures")
    outside = [*place.parent.glob("*.png"), *(p for p in place.rglob("*.png") if p.parent.name != "pictures")]
    assert not outside and not Path("/tmp/x.png").exists()


@pytest.mark.parametrize("file", ["../../x.png", "../x.png", "/tmp/equipoise-x.png", "a/b.png", "x", "", b"\xff", 7])
def test_a_pictures_name_from_elsewhere_is_not_used(tmp_path: Path, whole: Path, file: Any) -> None:
    path = tmp_path / "in" / "l.sqlite"
    path.parent.mkdir()
    path.write_bytes(whole.read_bytes())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE images SET file = ? WHERE run = 'run 0'", (file,))
    db.close()
    assert used(path, path.parent / "pictures") == ""
    assert [p.parent.name for p in tmp_path.rglob("*") if p.is_file() and p != path] == ["pictures"]
    assert not Path("/tmp/equipoise-x.png").exists()


@bad_input(60)
@given(key=st.one_of(st.text(max_size=40), st.sampled_from(ODD_VALUES).map(json.dumps),
                     st.sampled_from(ODD_VALUES).map(lambda v: json.dumps({"attributes": v, "cells": v, "group": ""}))))  # fmt: skip
def test_a_target_that_cannot_be_read_is_told_of(whole: Path, room: Callable[[], Path], key: str) -> None:
    place = room()
    path = place / "l.sqlite"
    path.write_bytes(whole.read_bytes())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE targets SET key = ?", (key.encode("utf-8", "replace").decode(),))
    db.close()
    with pytest.raises(ValueError, match="a ledger holds a target that cannot be read"):
        Ledger(path).balances()


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
@pytest.mark.parametrize("more", [0, 200, 3000, 9000, 20000])
def test_a_full_disk_leaves_the_ledger_whole(tmp_path: Path, more: int) -> None:
    """No file may grow beyond what it needs now and a little; the write-ahead log is such a file too."""
    import resource

    path, folder = tmp_path / "l.sqlite", tmp_path / "pictures"
    ledger = filled(path, folder)
    rows, files = ledger.rows(), sorted(os.listdir(folder))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (more, hard))
    added = 0
    try:
        for i in range(10):
            record(ledger, folder, RunKey(f"later {i}", "4"), "yes")
            added += 1
    except (ValueError, OSError) as error:
        assert not isinstance(error, ValueError) or "free space" in str(error), str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert added < 10 or more > 9000
    ledger.check()
    reconcile(ledger, folder)
    now = ledger.rows()
    assert [r for r in now if r["run"] in {old["run"] for old in rows}] == rows
    assert {r["file"] for r in now if r["file"]} == set(os.listdir(folder)) >= set(files), "no half of a picture, none without a row"
    record(ledger, folder, RunKey("again", "4"), "yes")
    assert len(ledger.rows()) == len(now) + 1


def test_a_folder_that_may_not_be_written_keeps_its_ledger(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    place = tmp_path / "place"
    place.mkdir()
    filled(place / "l.sqlite", place / "pictures")
    before = (place / "l.sqlite").read_bytes()
    code = f"""
import os
from pathlib import Path
from equipoise.methods.ledger.ledger import Ledger, RunKey
from equipoise.methods.core.target_text import parse_target
place = Path({str(place)!r})
if os.getuid() == 0:
    os.chown(place, 65534, 65534), os.chown(place / "l.sqlite", 65534, 65534)
    os.chmod({str(tmp_path)!r}, 0o755)
    for p in Path({str(tmp_path)!r}).parents:
        if p.stat().st_uid == 0 and not p.stat().st_mode & 1:
            os.chmod(p, p.stat().st_mode | 0o11)
    os.setgid(65534), os.setuid(65534)
os.chmod(place / "l.sqlite", 0o400), os.chmod(place, 0o500)
half = parse_target("eyeglasses: yes=0.5, no=0.5", {{"eyeglasses": ("no", "yes")}})
try:
    Ledger(place / "l.sqlite").reserve(half, RunKey("x", "1"), 1, 0)
except ValueError as error:
    print("REFUSED", error)
os.chmod(place, 0o700)
"""
    said = fresh_python(code)
    assert "REFUSED the ledger 'l.sqlite' cannot be written" in said and "change the rights of its folder" in said
    assert (place / "l.sqlite").read_bytes() == before and sorted(os.listdir(place)) == ["l.sqlite", "pictures"]
