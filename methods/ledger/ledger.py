"""The balance ledger: which class every image of a queue was assigned, and which one was seen in it, kept in SQLite.

One file per ledger, one row per image. A sampling run reserves its quotas in one transaction when it decides, confirms them when it ended
well, and releases them when it failed; who is gone is released by the next one. Recording an image replaces what was assigned by what was
seen, so that later quotas correct for misses. Several processes may use one file at once, and each may be killed at any moment.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...models.files import DAMAGE
from ..core.assignment import ledger_quotas
from ..core.targets import TargetDistribution

APPLICATION, VERSION = 0x45515549, 1
"""What marks a SQLite file as a ledger ("EQUI"), and the version of its tables."""
MAGIC = b"SQLite format 3\x00"
SYNCHRONOUS = "NORMAL"
"""SQLite's care against a loss of power; a killed process loses nothing at any setting."""
BUSY = 30.0
"""Seconds to wait for another process."""
RELEASE_AFTER = 6 * 3600
"""Seconds after which a reservation that was neither confirmed nor released is dropped."""
RESERVED, MADE, SEEN = "reserved", "made", "seen"

TABLES = f"""
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE targets (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE);
CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    target INTEGER NOT NULL REFERENCES targets (id),
    run TEXT NOT NULL,
    node TEXT NOT NULL,
    place INTEGER NOT NULL CHECK (typeof(place) = 'integer' AND place >= 0),
    time INTEGER NOT NULL CHECK (typeof(time) = 'integer'),
    state TEXT NOT NULL CHECK (state IN ('{RESERVED}', '{MADE}', '{SEEN}')),
    owner TEXT NOT NULL,
    seed TEXT NOT NULL DEFAULT '',
    prompt_hash TEXT NOT NULL DEFAULT '',
    assigned TEXT,
    seen TEXT,
    file TEXT,
    file_hash TEXT NOT NULL DEFAULT '',
    pixels TEXT NOT NULL DEFAULT '',
    UNIQUE (target, run, node, place)
);
CREATE INDEX images_by_class ON images (target, coalesce(seen, assigned));
CREATE INDEX images_by_pixels ON images (pixels) WHERE pixels <> '';
CREATE INDEX images_not_seen ON images (state, owner) WHERE state <> 'seen';
"""


@dataclass(frozen=True)
class RunKey:
    """The run and the node that sampled some images."""

    run: str
    """Id that the server gave the queued prompt."""
    node: str
    """Id of the node that sampled."""


@dataclass(frozen=True)
class Reservation:
    """Quotas that a run has reserved."""

    key: RunKey
    """The run and node."""
    first: int
    """Index of its first image among those of the key."""
    counts: list[int]
    """Images per cell of the target."""


@dataclass(frozen=True)
class SeenImage:
    """One image that was recorded."""

    place: int
    """Index of the image among those of its run."""
    seen: tuple[str, ...]
    """Classes that were seen, in the order of the target's attributes."""
    assigned: tuple[str, ...] | None = None
    """Classes that it was assigned, in the same order; None if it was assigned none."""
    seed: str = ""
    """Seed of the sampler, if known."""
    prompt_hash: str = ""
    """Hash of the prompt's graph, if known."""
    file: str | None = None
    """Name of the picture's file; None if it was not saved."""
    file_hash: str = ""
    """SHA-256 of the file."""
    pixels: str = ""
    """Digest of the pixels."""


@dataclass(frozen=True)
class Balance:
    """What a ledger holds for one target."""

    key: str
    """Text that identifies target and group."""
    group: str
    """Group in which images are counted apart."""
    target: TargetDistribution
    """The target."""
    seen: tuple[int, ...]
    """Recorded images per cell, by what was seen."""
    assigned: tuple[int, ...]
    """Other images per cell, by what they were assigned; made or still being made."""
    hits: int
    """Recorded images that show the class they were assigned."""
    asked: int
    """Recorded images that were assigned a class."""

    @property
    def counts(self) -> list[int]:
        """What quotas go by."""
        return [a + b for a, b in zip(self.seen, self.assigned, strict=True)]


@dataclass(frozen=True)
class Claim:
    """The run under which images are recorded."""

    key: RunKey
    """The run and node."""
    known: dict[int, tuple[tuple[str, ...] | None, str, str | None]]
    """What the ledger knows of the images by index: (assigned, seed, file)."""


def target_key(target: TargetDistribution, group: str = "") -> str:
    """Return a text that is the same for the same target.

    The order of its attributes and classes does not matter. Classes of share 0 are left out.
    """
    order = _order(target)
    cells = sorted([[c[i] for i in order], round(s, 6)] for c, s in zip(target.cells, target.shares, strict=True) if s > 0)
    return json.dumps({"attributes": [target.attributes[i] for i in order], "cells": cells, "group": group}, separators=(",", ":"))


def cell_text(target: TargetDistribution, cell: Sequence[str]) -> str:
    """Write a cell of class names as it is stored.

    By the attributes' names in alphabetical order.
    """
    return json.dumps([cell[i] for i in _order(target)], separators=(",", ":"))


def _order(target: TargetDistribution) -> list[int]:
    return sorted(range(len(target.attributes)), key=target.attributes.__getitem__)


def _cell_of(target: TargetDistribution, text: str | None) -> tuple[str, ...] | None:
    """Read stored text as class names in the target's own order."""
    if text is None:
        return None
    names, order = json.loads(text), _order(target)
    return tuple(names[order.index(i)] for i in range(len(order)))


def _plain_name(file: Any) -> str | None:
    """Return the name of a picture; None if it leads out of the folder.

    Only another program writes such a name.
    """
    return file if isinstance(file, str) and re.fullmatch(r"[\w-]+\.png", file) else None


class Ledger:
    """One ledger file.

    ``owner`` names this process; ``gone(owner)`` tells whether a process has ended, so that what it reserved is released at once.
    ``group``: images are counted apart from those of other groups.

    A connection is opened for every call and closed with it. Every method raises ValueError, in a sentence, where the file is no ledger,
    is damaged, cannot be written or is kept busy; such a file is left as it is.
    """

    def __init__(self, path: Path, owner: str = "", gone: Callable[[str], bool] | None = None, group: str = "") -> None:
        self.path, self.owner, self.group = Path(path), owner, group
        self._gone = gone or (lambda _: False)

    @property
    def name(self) -> str:
        """What the user calls it."""
        return self.path.stem

    # -- what a sampling run does ------------------------------------------------------------------------------------------------------

    def reserve(
        self, target: TargetDistribution, key: RunKey, n: int, seed: int, sampler_seed: int = 0, again: bool = False
    ) -> Reservation:
        """Reserve quotas for ``n`` images by the ledger's counts, in one transaction.

        A run that reserves again (a node that samples twice, a replay) keeps its places and quotas. ``again``: the run goes on with images
        that may have been drawn by another node of this prompt; if there are any, it keeps theirs.
        """
        with self._connection(write=True) as db:
            number = self._target(db, target)
            self._tidy(db)
            key, reserved = self._reserved_before(db, number, key, n, again)
            counts = self._as_before(target, reserved) if len(reserved) == n else None
            if counts is not None:
                return Reservation(key, reserved[0]["place"], counts)
            first = reserved[-1]["place"] + 1 if reserved else 0
            counts = ledger_quotas(target.shares, n, self._counts(db, number, target), seed)
            cells = [cell_text(target, cell) for cell, count in zip(target.cells, counts, strict=True) for _ in range(count)]
            rows = [
                (number, key.run, key.node, first + i, int(time.time()), RESERVED, self.owner, str(sampler_seed), cell)
                for i, cell in enumerate(cells)
            ]
            db.executemany(
                "INSERT INTO images (target, run, node, place, time, state, owner, seed, assigned) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
            return Reservation(key, first, counts)

    def confirm(self, target: TargetDistribution, reservation: Reservation, cells: Sequence[int], sampler_seed: int = 0) -> None:
        """Confirm that a run ended well and its images became these cells.

        This also works after the reservation was released by age.

        Also where the reservation was released by age.
        """
        with self._connection(write=True) as db:
            number, key = self._target(db, target), reservation.key
            rows = [
                (number, key.run, key.node, reservation.first + i, int(time.time()), MADE, self.owner, str(sampler_seed),
                 cell_text(target, target.cells[cell]))
                for i, cell in enumerate(cells)
            ]  # fmt: skip
            db.executemany(
                "INSERT INTO images (target, run, node, place, time, state, owner, seed, assigned) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
                f"ON CONFLICT (target, run, node, place) DO UPDATE SET assigned = excluded.assigned, seed = excluded.seed, "
                f"state = CASE state WHEN '{RESERVED}' THEN '{MADE}' ELSE state END",
                rows,
            )

    def release(self, target: TargetDistribution, reservation: Reservation) -> None:
        """Drop what a failed run reserved and did not make."""
        with self._connection(write=True) as db:
            db.execute(
                f"DELETE FROM images WHERE target = ? AND run = ? AND node = ? AND state = '{RESERVED}'",
                (self._target(db, target), reservation.key.run, reservation.key.node),
            )

    # -- what recording does -----------------------------------------------------------------------------------------------------------

    def claim(
        self,
        target: TargetDistribution,
        own: RunKey,
        drawn_by: Sequence[RunKey],
        pixels: Sequence[str],
        certain: RunKey | None = None,
    ) -> Claim:
        """Find the run under which images are recorded.

        ``own``: of the node that records; ``drawn_by``: nodes of this prompt that may have drawn them, the nearest first; ``certain``: the
        run that is known to have drawn them; ``pixels``: a digest of every image.

        In this order: the run that is known; a node of this prompt; the same pictures recorded before (a replay: what sampled them stood in
        the host's cache); the newest run of such a node that was not recorded. Otherwise the key of the node that records: such images
        count as seen, and what this prompt's nodes were assigned for images that came here in other numbers is dropped.
        """
        n = len(pixels)
        with self._connection(write=True) as db:
            number = self._target(db, target)
            for key in [*([certain] if certain else []), *drawn_by]:
                rows = self._rows(db, number, key)
                if len(rows) == n:
                    return self._claim(target, key, rows)
            if certain is not None:
                return Claim(certain, {})
            nodes = [key.node for key in drawn_by]
            for key in (self._seen_before(db, number, [*nodes, own.node], pixels), self._not_recorded(db, number, nodes, n)):
                if key is not None:
                    return self._claim(target, key, self._rows(db, number, key))
            for key in drawn_by:
                db.execute(
                    f"DELETE FROM images WHERE target = ? AND run = ? AND node = ? AND state <> '{SEEN}'", (number, key.run, key.node)
                )
            return self._claim(target, own, self._rows(db, number, own))

    def record(self, target: TargetDistribution, key: RunKey, image: SeenImage) -> None:
        """Write one image's row.

        If you record an image again, what was seen is replaced.
        """
        with self._connection(write=True) as db:
            assigned = None if image.assigned is None else cell_text(target, image.assigned)
            self._record(db, self._target(db, target), key, image, assigned, cell_text(target, image.seen))

    def adopt(self, key_of_target: str, key: RunKey, image: SeenImage, assigned: str | None) -> bool:
        """Add the row of an image whose file exists and whose row does not.

        Cells are as they are stored. Returns False if a row has a file already.
        """
        with self._connection(write=True) as db:
            db.execute("INSERT INTO targets (key) VALUES (?) ON CONFLICT DO NOTHING", (key_of_target,))
            number = db.execute("SELECT id FROM targets WHERE key = ?", (key_of_target,)).fetchone()[0]
            reserved = db.execute(
                "SELECT file FROM images WHERE target = ? AND run = ? AND node = ? AND place = ?", (number, key.run, key.node, image.place)
            ).fetchone()
            if reserved is not None and reserved["file"] is not None:
                return False
            self._record(db, number, key, image, assigned, image.seen[0])
            return True

    def _record(self, db: sqlite3.Connection, number: int, key: RunKey, image: SeenImage, assigned: str | None, seen: str) -> None:
        db.execute(
            "INSERT INTO images (target, run, node, place, time, state, owner, seed, prompt_hash, assigned, seen, file, file_hash, pixels) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (target, run, node, place) DO UPDATE SET "
            "state = excluded.state, seen = excluded.seen, assigned = coalesce(excluded.assigned, assigned), file = excluded.file, "
            "file_hash = excluded.file_hash, pixels = excluded.pixels, prompt_hash = excluded.prompt_hash, "
            "seed = CASE seed WHEN '' THEN excluded.seed ELSE seed END",
            (number, key.run, key.node, image.place, int(time.time()), SEEN, self.owner, image.seed, image.prompt_hash, assigned, seen,
             image.file, image.file_hash, image.pixels),
        )  # fmt: skip

    # -- what is asked of it -----------------------------------------------------------------------------------------------------------

    @property
    def epoch(self) -> str:
        """Return the mark that changes when the ledger is reset.

        Images that were saved before a reset no longer belong to the ledger.
        """
        with self._connection() as db:
            return db.execute("SELECT value FROM facts WHERE name = 'epoch'").fetchone()[0]

    def balances(self) -> list[Balance]:
        """List what the ledger holds by target and group, the oldest first."""
        with self._connection() as db:
            return [self._summary(db, row["id"], row["key"]) for row in db.execute("SELECT id, key FROM targets ORDER BY id").fetchall()]

    def balance_of(self, target: TargetDistribution) -> Balance | None:
        """Return what the ledger holds for one target and this group.

        None if that is nothing.
        """
        key = target_key(target, self.group)
        return next((h for h in self.balances() if h.key == key), None)

    def images(self, run: str | None = None) -> int:
        """Count the rows of all targets, or those of one run."""
        with self._connection() as db:
            return db.execute("SELECT count(*) FROM images WHERE ? IS NULL OR run = ?", (run, run)).fetchone()[0]

    def files(self) -> set[str]:
        """List the names of the files that rows refer to."""
        with self._connection() as db:
            return {row["file"] for row in db.execute("SELECT file FROM images WHERE file IS NOT NULL")}

    def rows(self) -> list[dict[str, Any]]:
        """List every row as plain values, the oldest first.

        Cells are written as "yes/long" in the order of ``attributes``.
        """
        with self._connection() as db:
            stored = db.execute("SELECT targets.key, images.* FROM images JOIN targets ON targets.id = images.target ORDER BY images.id")
            return [_plain(dict(row)) for row in stored]

    def reset(self, images: int) -> bool:
        """Delete every row, if there are exactly this many; the pictures stay.

        Returns False, and changes nothing, if the number differs.
        """
        with self._connection(write=True) as db:
            (count,) = db.execute("SELECT count(*) FROM images").fetchone()
            if count != images:
                return False
            db.execute("DELETE FROM images")
            db.execute("DELETE FROM targets")
            db.execute("UPDATE facts SET value = ? WHERE name = 'epoch'", (uuid.uuid4().hex,))
            return True

    def check(self) -> None:
        """Raise ValueError where the file is damaged."""
        with self._connection() as db:
            (check,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if check != "ok":
                raise sqlite3.DatabaseError(check)

    def tidy(self) -> int:
        """Drop what was reserved by who is gone, or too long ago; how many rows."""
        with self._connection(write=True) as db:
            return self._tidy(db)

    # -- inside a transaction ----------------------------------------------------------------------------------------------------------

    def _target(self, db: sqlite3.Connection, target: TargetDistribution) -> int:
        key = target_key(target, self.group)
        db.execute("INSERT INTO targets (key) VALUES (?) ON CONFLICT DO NOTHING", (key,))
        return db.execute("SELECT id FROM targets WHERE key = ?", (key,)).fetchone()[0]

    def _tidy(self, db: sqlite3.Connection) -> int:
        """Remove reservations that are old or whose process has ended.

        Images that were made and never recorded go too, if that node's other images are recorded: nobody saved them. Where a node's images
        are never recorded, they stay, because nothing else is known of them.
        """
        recorded = "(target, node) IN (SELECT DISTINCT target, node FROM images WHERE seen IS NOT NULL)"
        loose = f"(state = '{RESERVED}' OR (state = '{MADE}' AND {recorded}))"
        owners = [row[0] for row in db.execute(f"SELECT DISTINCT owner FROM images WHERE state <> '{SEEN}'").fetchall()]
        dropped = db.execute(f"DELETE FROM images WHERE {loose} AND time < ?", (int(time.time()) - RELEASE_AFTER,)).rowcount
        for owner in owners:
            if owner != self.owner and self._gone(owner):
                dropped += db.execute(f"DELETE FROM images WHERE {loose} AND owner = ?", (owner,)).rowcount
        return dropped

    def _rows(self, db: sqlite3.Connection, number: int, key: RunKey) -> list[sqlite3.Row]:
        """Read the rows of a run.

        If a node was expanded from another one while running, its id is that one's id, a dot and more.
        """
        inside = key.node.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + ".%"
        return db.execute(
            "SELECT * FROM images WHERE target = ? AND run = ? AND (node = ? OR node LIKE ? ESCAPE '\\') ORDER BY place",
            (number, key.run, key.node, inside),
        ).fetchall()

    def _reserved_before(self, db: sqlite3.Connection, number: int, key: RunKey, n: int, again: bool) -> tuple[RunKey, list[sqlite3.Row]]:
        rows = db.execute(
            "SELECT * FROM images WHERE target = ? AND run = ? AND node = ? ORDER BY place", (number, key.run, key.node)
        ).fetchall()
        if rows or not again:
            return key, rows
        other = db.execute(
            "SELECT node FROM images WHERE target = ? AND run = ? GROUP BY node HAVING count(*) = ? ORDER BY max(id) DESC LIMIT 1",
            (number, key.run, n),
        ).fetchone()
        if other is None:
            return key, []
        key = RunKey(key.run, other["node"])
        return key, self._rows(db, number, key)

    @staticmethod
    def _as_before(target: TargetDistribution, rows: list[sqlite3.Row]) -> list[int] | None:
        """Count the cells that rows were assigned.

        None if that is not known of all rows, or a cell is not of this target.
        """
        index = {cell_text(target, cell): i for i, cell in enumerate(target.cells)}
        if any(row["assigned"] not in index for row in rows):
            return None
        counts = [0] * len(index)
        for row in rows:
            counts[index[row["assigned"]]] += 1
        return counts

    @staticmethod
    def _counts(db: sqlite3.Connection, number: int, target: TargetDistribution) -> list[int]:
        query = "SELECT coalesce(seen, assigned), count(*) FROM images WHERE target = ? GROUP BY 1"
        counted = dict(db.execute(query, (number,)).fetchall())
        return [counted.get(cell_text(target, cell), 0) for cell in target.cells]

    @staticmethod
    def _claim(target: TargetDistribution, key: RunKey, rows: list[sqlite3.Row]) -> Claim:
        known = {row["place"]: (_cell_of(target, row["assigned"]), row["seed"], _plain_name(row["file"])) for row in rows}
        return Claim(RunKey(rows[0]["run"], rows[0]["node"]) if rows else key, known)

    @staticmethod
    def _seen_before(db: sqlite3.Connection, number: int, nodes: Sequence[str], pixels: Sequence[str]) -> RunKey | None:
        """Find the newest run whose recorded pictures are these, in this order.

        Only runs of the given nodes count.
        """
        if not pixels:
            return None
        marks = ", ".join("?" * len(nodes))
        for row in db.execute(
            f"SELECT run, node FROM images WHERE target = ? AND pixels = ? AND node IN ({marks}) ORDER BY id DESC LIMIT 20",
            (number, pixels[0], *nodes),
        ).fetchall():
            newest = db.execute(
                "SELECT pixels FROM images WHERE target = ? AND run = ? AND node = ? ORDER BY place", (number, row["run"], row["node"])
            ).fetchall()
            if [r["pixels"] for r in newest] == list(pixels):
                return RunKey(row["run"], row["node"])
        return None

    def _not_recorded(self, db: sqlite3.Connection, number: int, nodes: Sequence[str], n: int) -> RunKey | None:
        """Find the newest run with as many images that was not recorded.

        Only runs of the given nodes, in this process, count.
        """
        marks = ", ".join("?" * len(nodes))
        row = db.execute(
            f"SELECT run, node FROM images WHERE target = ? AND owner = ? AND node IN ({marks}) GROUP BY run, node "
            f"HAVING count(*) = ? AND sum(state = '{MADE}') = ? ORDER BY max(id) DESC LIMIT 1",
            (number, self.owner, *nodes, n, n),
        ).fetchone()
        return None if row is None else RunKey(row["run"], row["node"])

    @staticmethod
    def _summary(db: sqlite3.Connection, number: int, key: str) -> Balance:
        target, group = parse_key(key)
        counted = db.execute(
            "SELECT seen, assigned, count(*) AS n FROM images WHERE target = ? GROUP BY seen, assigned ORDER BY 1, 2", (number,)
        ).fetchall()
        target = _with_classes(target, [json.loads(t) for row in counted for t in (row["seen"], row["assigned"]) if t is not None])
        index = {cell_text(target, cell): i for i, cell in enumerate(target.cells)}
        seen, assigned, hits, asked = [0] * len(index), [0] * len(index), 0, 0
        for row in counted:
            if row["seen"] is None:
                assigned[index[row["assigned"]]] += row["n"]
                continue
            seen[index[row["seen"]]] += row["n"]
            asked += row["n"] if row["assigned"] is not None else 0
            hits += row["n"] if row["assigned"] == row["seen"] else 0
        return Balance(key, group, target, tuple(seen), tuple(assigned), hits, asked)

    # -- the file ----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _connection(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """Open the ledger, within one transaction.

        The file is made if there is none. A writing transaction is the only one; a reading one sees one state.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._refuse_other_files()
            db = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
        except (OSError, sqlite3.Error) as error:
            raise ValueError(self._message(error)) from error
        try:
            db.row_factory = sqlite3.Row
            self._prepare(db)
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield db
            except BaseException:
                db.rollback()
                raise
            db.execute("COMMIT")
        except (sqlite3.Error, *DAMAGE) as error:
            if type(error) is ValueError:
                raise  # a sentence already
            raise ValueError(self._message(error)) from error
        finally:
            db.close()

    def _refuse_other_files(self) -> None:
        if self.path.exists():
            with self.path.open("rb") as stream:
                head = stream.read(len(MAGIC))
            if head and head != MAGIC:
                raise sqlite3.DatabaseError("it is no SQLite file")

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Make the tables of a new ledger.

        Raises ValueError for another program's file, or a newer version's.
        """
        db.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        db.execute("BEGIN")  # what is asked is answered of one state: another process may make the tables in between
        try:
            if self._is_ours(db):
                return
        finally:
            db.rollback()
        for last in [False] * 50 + [True]:  # another process may make it at this moment, and this step does not wait by itself
            try:
                db.execute("PRAGMA journal_mode = WAL").fetchone()
                break
            except sqlite3.OperationalError:
                if last:
                    raise
                time.sleep(0.1)
        db.execute("BEGIN IMMEDIATE")
        try:
            if not self._is_ours(db):
                for statement in filter(str.strip, TABLES.split(";\n")):
                    db.execute(statement)
                db.execute("INSERT INTO facts VALUES ('epoch', ?)", (uuid.uuid4().hex,))
                db.execute(f"PRAGMA user_version = {VERSION}")
                db.execute(f"PRAGMA application_id = {APPLICATION}")
            db.execute("COMMIT")
        except BaseException:
            db.rollback()
            raise

    def _is_ours(self, db: sqlite3.Connection) -> bool:
        """Return whether the file is a ledger, and False if it is empty.

        Raises ValueError for any other file.
        """
        (application,), (version,) = db.execute("PRAGMA application_id").fetchone(), db.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION:
            if version != VERSION:
                raise ValueError(
                    f"the ledger '{self.path.name}' is of version {version}, and this copy of Equipoise reads version {VERSION}: update "
                    "it, or choose another name."
                )
            return True
        if application or version or db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise ValueError(
                f"'{self.path.name}' is a database of another program and no ledger: it was left as it is, so move it away or choose "
                "another name."
            )
        return False

    def _message(self, error: Exception) -> str:
        """Describe a database error in one sentence."""
        text = " ".join(str(error).split())
        if isinstance(error, OSError) or any(w in text for w in ("readonly", "read-only", "unable to open", "disk I/O")):
            return f"the ledger '{self.path.name}' cannot be written ({text}): change the rights of its folder, or free space."
        if "full" in text:
            return f"the ledger '{self.path.name}' cannot be written, as the disk is full: free space, and queue again."
        if "locked" in text or "busy" in text:
            return f"the ledger '{self.path.name}' was kept busy by another process for {BUSY:.0f} s: queue again when that has ended."
        return (
            f"the ledger '{self.path.name}' is damaged, or no ledger ({text}): it was left as it is, so move it away or choose another "
            "name."
        )


def parse_key(key: str) -> tuple[TargetDistribution, str]:
    """Read the target and the group from a key.

    Raises ValueError if the text is no key.
    """
    try:
        read = json.loads(key)
        attributes, cells, group = read["attributes"], read["cells"], read["group"]
        names = [tuple(cell) for cell, _ in cells]
        right = isinstance(group, str) and attributes and all(isinstance(a, str) for a in attributes) and bool(names)
        right = right and all(len(c) == len(attributes) and all(isinstance(x, str) for x in c) for c in names)
        if not right:
            raise ValueError("its parts do not fit")
        by_cell = dict(zip(names, (float(share) for _, share in cells), strict=True))
        total = sum(by_cell.values())
        if not all(0 < share < math.inf for share in by_cell.values()):
            raise ValueError("its shares are no numbers above 0")
        classes = tuple(tuple(dict.fromkeys(c[i] for c in names)) for i in range(len(attributes)))
        target = TargetDistribution(tuple(attributes), classes, _shares(classes, {c: s / total for c, s in by_cell.items()}))
        return target, group
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise ValueError(f"a ledger holds a target that cannot be read ({error}): it was written by something else.") from error


def _shares(classes: Sequence[Sequence[str]], by_cell: dict[tuple[str, ...], float]) -> tuple[float, ...]:
    return tuple(by_cell.get(cell, 0.0) for cell in itertools.product(*classes))


def _with_classes(target: TargetDistribution, cells: Sequence[Sequence[str]]) -> TargetDistribution:
    """Add the classes that cells name to a target, at share 0."""
    classes = tuple(tuple(dict.fromkeys([*known, *(cell[i] for cell in cells)])) for i, known in enumerate(target.classes))
    return TargetDistribution(target.attributes, classes, _shares(classes, dict(zip(target.cells, target.shares, strict=True))))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    target, group = parse_key(row.pop("key"))
    row.pop("target")
    row.pop("id")
    row |= {name: None if row[name] is None else "/".join(json.loads(row[name])) for name in ("assigned", "seen")}
    asked = ", ".join(f"{'/'.join(c)}={s:.4g}" for c, s in zip(target.cells, target.shares, strict=True) if s > 0)
    return {"attributes": " x ".join(target.attributes), "target": asked, "group": group, **row}
