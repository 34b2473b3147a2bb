"""The balance ledger without a host: what is counted, who may write, and what survives."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import random
import signal
import sqlite3
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from equipoise.methods.core.assignment import ledger_quotas, quotas
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.core.targets import TargetDistribution
from equipoise.methods.ledger.ledger import RELEASE_AFTER, Ledger, RunKey, SeenImage, cell_text, parse_key, target_key
from equipoise.tests.equipoise_patience import PATIENCE

GLASSES = {"eyeglasses": ("no", "yes")}
HALF = parse_target("eyeglasses: yes=0.5, no=0.5", GLASSES)
TONES = parse_target("skin_tone: uniform", {"skin_tone": ("light", "medium", "dark")})


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk is what takes time here, and is nothing that a test can see."""
    monkeypatch.setattr("equipoise.methods.ledger.ledger.SYNCHRONOUS", "OFF")


def run_of(number: int, node: str = "7") -> RunKey:
    return RunKey(f"prompt-{number}", node)


def counts(ledger: Ledger, target: TargetDistribution = HALF) -> dict[str, int]:
    held = ledger.balance_of(target)
    return {} if held is None else {name: n for name, n in zip(held.target.names, held.counts, strict=True) if n}


# -- quotas ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(0.5, 0.5), (1 / 3, 1 / 3, 1 / 3), (0.2, 0.8), (0.05, 0.15, 0.3, 0.5), (0.0, 0.37, 0.63)])
def test_runs_of_one_image_give_what_one_large_run_gives(shares: tuple[float, ...]) -> None:
    seen = [0] * len(shares)
    for i in range(256):
        got = ledger_quotas(shares, 1, seen, i * 7919)
        assert sum(got) == 1
        seen = [a + b for a, b in zip(seen, got, strict=True)]
        assert all(abs(n - s * (i + 1)) < 1 for n, s in zip(seen, shares, strict=True))
    whole = ledger_quotas(shares, 256, [0] * len(shares), 3)
    assert all(abs(a - b) <= 1 for a, b in zip(seen, whole, strict=True)) and sum(whole) == 256
    assert all(int(256 * s) <= n <= int(256 * s) + 1 for n, s in zip(whole, shares, strict=True))


def test_what_was_seen_is_corrected_and_ties_are_the_seeds() -> None:
    assert ledger_quotas((0.5, 0.5), 4, [10, 0], 0) == [0, 4]
    assert ledger_quotas((0.5, 0.5), 4, [3, 1], 0) == [1, 3]
    assert {tuple(ledger_quotas((0.5, 0.5), 1, [4, 4], seed)) for seed in range(20)} == {(0, 1), (1, 0)}
    first = [ledger_quotas((1 / 3, 1 / 3, 1 / 3), 1, [0, 0, 0], seed).index(1) for seed in range(600)]
    assert all(150 < first.count(cell) < 250 for cell in range(3))
    assert ledger_quotas((1.0, 0.0), 3, [0, 5], 1) == [3, 0]
    with pytest.raises(ValueError, match=r"one count per cell, but there are 1 counts for 2 shares\.$"):
        ledger_quotas((0.5, 0.5), 1, [1], 0)


def test_ledger_quotas_are_whole_and_near_for_any_counts() -> None:
    draw = random.Random(4)
    for _ in range(300):
        k, n = draw.randint(1, 8), draw.randint(0, 40)
        weights = [draw.choice([0.0, draw.random()]) for _ in range(k)]
        weights[draw.randrange(k)] = 0.5
        shares = [w / sum(weights) for w in weights]
        seen = [draw.randint(0, 20) for _ in range(k)]
        got = ledger_quotas(shares, n, seen, draw.getrandbits(40))
        assert sum(got) == n and all(type(g) is int and g >= 0 for g in got)
        assert all(g == 0 for g, s in zip(got, shares, strict=True) if not s)
        lacking = [s * (sum(seen) + n) - a - g for s, a, g in zip(shares, seen, got, strict=True)]
        given = [x for x, g in zip(lacking, got, strict=True) if g]
        assert not given or max(x for x, s in zip(lacking, shares, strict=True) if s) <= min(given) + 1 + 1e-6


def test_runs_without_a_ledger_ask_the_quotas_of_before() -> None:
    from equipoise.methods.core.batch_run import QuotaSource

    assert QuotaSource().quotas(HALF, 7, 5) == quotas(HALF.shares, 7, 5)


# -- targets ---------------------------------------------------------------------------------------------------------------------------


def test_a_target_has_one_key_however_it_is_ordered() -> None:
    known = {"a": ("x", "y"), "b": ("u", "v", "w")}
    one = parse_target("a x b: x/u=0.5, y/v=0.5", known)
    other = parse_target("b x a: u/x=0.5, v/y=0.5", {"b": ("w", "v", "u"), "a": ("y", "x")})
    assert target_key(one) == target_key(other) != target_key(one, "group")
    assert cell_text(one, ("x", "u")) == cell_text(other, ("u", "x"))
    assert target_key(parse_target("a: x=0.4, y=0.6", known)) != target_key(parse_target("a: uniform", known))
    back, group = parse_key(target_key(other, "doctors"))
    assert group == "doctors" and target_key(back, group) == target_key(one, "doctors")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"attributes":[],"cells":[],"group":""}',
        '{"attributes":["a"],"cells":[[["x"],0]],"group":""}',
        '{"attributes":["a"],"cells":[[["x","y"],1]],"group":""}',
        '{"attributes":["a"],"cells":[[["x"],"nan"]],"group":""}',
        '{"attributes":["a"],"cells":[[["x"],-1],[["y"],2]],"group":""}',
    ],
)
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a ledger holds a target that cannot be read"):
        parse_key(text)


# -- one process -----------------------------------------------------------------------------------------------------------------------


def test_a_run_reserves_confirms_and_is_corrected_by_what_was_seen(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "mine.sqlite", "me")
    place = ledger.reserve(HALF, run_of(1), 4, seed=1)
    assert sorted(place.counts) == [2, 2] and counts(ledger) == {"no": 2, "yes": 2}
    ledger.confirm(HALF, place, [1, 0, 0, 1], sampler_seed=2**64 - 1)
    assert [(r["state"], r["assigned"], r["seed"]) for r in ledger.rows()][:2] == [("made", c, str(2**64 - 1)) for c in ("yes", "no")]
    claim = ledger.claim(HALF, run_of(1, "9"), [run_of(1)], ["a", "b", "c", "d"])
    assert claim.key == run_of(1) and [claim.known[i][0] for i in range(4)] == [("yes",), ("no",), ("no",), ("yes",)]
    for i in range(4):
        ledger.record(HALF, claim.key, SeenImage(i, ("no",), claim.known[i][0], pixels="abcd"[i]))
    held = ledger.balance_of(HALF)
    assert counts(ledger) == {"no": 4} and (held.hits, held.asked, held.assigned) == (2, 4, (0, 0))
    assert ledger.reserve(HALF, run_of(2), 4, seed=1).counts == [0, 4]
    assert ledger.images() == 8


def test_a_failed_run_is_released_and_one_that_was_made_is_not(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    place = ledger.reserve(HALF, run_of(1), 3, seed=1)
    ledger.release(HALF, place)
    assert ledger.images() == 0
    ledger.confirm(HALF, place, [0, 0, 1])  # a run that was released by age and ended all the same
    ledger.release(HALF, place)
    assert counts(ledger) == {"no": 2, "yes": 1}


def test_a_replay_of_a_run_is_one_row_and_keeps_its_quotas(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    first = ledger.reserve(HALF, run_of(1), 3, seed=1)
    ledger.confirm(HALF, first, [0, 1, 1] if first.counts[1] == 2 else [1, 0, 0])
    other = ledger.reserve(HALF, run_of(2), 1, seed=9)
    again = ledger.reserve(HALF, run_of(1), 3, seed=77)
    assert again == first and ledger.images() == 4
    assert ledger.reserve(HALF, run_of(2), 1, seed=3) == other and ledger.reserve(HALF, run_of(3), 1, seed=3).key == run_of(3)
    assert ledger.images() == 5


def test_images_that_another_node_of_the_prompt_refines_are_counted_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    for number in range(6):
        first = ledger.reserve(HALF, run_of(number, "3"), 1, seed=number)
        ledger.confirm(HALF, first, [first.counts.index(1)])
        second = ledger.reserve(HALF, run_of(number, "8"), 1, seed=number, again=True)
        assert second == first
    assert ledger.images() == 6 and counts(ledger) == {"no": 3, "yes": 3}
    alone = ledger.reserve(HALF, run_of(99, "8"), 1, seed=0, again=True)  # a picture that was loaded
    assert alone.key == run_of(99, "8") and ledger.images() == 7


def test_a_cached_run_is_found_by_its_pictures_or_as_the_newest_that_was_not_recorded(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    for number in (1, 2):
        place = ledger.reserve(HALF, run_of(number), 2, seed=number)
        ledger.confirm(HALF, place, [0, 1])
    late = ledger.claim(HALF, run_of(5, "9"), [run_of(5)], ["p", "q"])  # sampled in prompt 2, recorded in prompt 5
    assert late.key == run_of(2)
    for i, pixels in enumerate("pq"):
        ledger.record(HALF, late.key, SeenImage(i, ("no",), pixels=pixels))
    assert ledger.claim(HALF, run_of(6, "9"), [run_of(6)], ["p", "q"]).key == run_of(2)
    assert ledger.claim(HALF, run_of(6, "9"), [run_of(6)], ["q", "p"]).key == run_of(1)  # other pictures: the run that waits
    assert ledger.claim(HALF, run_of(6, "9"), [run_of(6)], ["p", "q"], certain=run_of(1)).key == run_of(1)
    assert ledger.claim(HALF, run_of(6, "9"), [], ["x"]).key == run_of(6, "9")
    assert ledger.images() == 4


def test_images_that_were_regrouped_count_as_seen_and_not_as_assigned_too(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    for node in ("3", "4"):
        place = ledger.reserve(HALF, run_of(1, node), 2, seed=1)
        ledger.confirm(HALF, place, [0, 1])
    claim = ledger.claim(HALF, run_of(1, "9"), [run_of(1, "3"), run_of(1, "4")], list("abcd"))  # an image batch of both
    assert claim.key == run_of(1, "9") and claim.known == {}
    for i in range(4):
        ledger.record(HALF, claim.key, SeenImage(i, ("yes",), pixels="abcd"[i]))
    assert counts(ledger) == {"yes": 4} and ledger.images() == 4


def test_groups_and_targets_are_counted_apart(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path, "me", group="nurses").reserve(HALF, run_of(1), 4, 0)
    Ledger(path, "me").reserve(TONES, run_of(1), 3, 0)
    assert counts(Ledger(path)) == {} and counts(Ledger(path, group="nurses")) == {"no": 2, "yes": 2}
    assert counts(Ledger(path), TONES) == {"light": 1, "medium": 1, "dark": 1}
    assert [(h.group, sum(h.counts)) for h in Ledger(path).balances()] == [("nurses", 4), ("", 3)]


def test_classes_that_nobody_asked_for_are_counted_when_seen(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    target = parse_target("hair: short=0.5, long=0.5, none=0", {"hair": ("short", "long", "none")})
    ledger.record(target, run_of(1), SeenImage(0, ("none",)))
    held = ledger.balance_of(target)
    assert dict(zip(held.target.names, held.seen, strict=True)) == {"short": 0, "long": 0, "none": 1}


def test_who_is_gone_or_late_is_released(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    Ledger(path, "dead").reserve(HALF, run_of(1), 2, 0)
    Ledger(path, "alive").reserve(HALF, run_of(2), 2, 0)
    Ledger(path, "old").reserve(HALF, run_of(3), 2, 0)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE images SET time = time - ? WHERE owner = 'old'", (RELEASE_AFTER + 5,))
    db.close()
    me = Ledger(path, "me", gone=lambda owner: owner == "dead")
    me.reserve(HALF, run_of(4), 1, 0)
    assert {r["owner"] for r in me.rows()} == {"alive", "me"} and me.images() == 3


def test_images_that_were_made_and_never_recorded_go_only_where_others_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    dead = Ledger(path, "dead")
    for number, node in ((1, "recorded"), (2, "recorded"), (3, "shown only")):
        dead.confirm(HALF, dead.reserve(HALF, run_of(number, node), 1, 0), [0])
    dead.record(HALF, run_of(1, "recorded"), SeenImage(0, ("no",)))
    me = Ledger(path, "me", gone=lambda owner: owner == "dead")
    assert me.tidy() == 1 and {(r["run"], r["state"]) for r in me.rows()} == {("prompt-1", "seen"), ("prompt-3", "made")}


def test_rows_are_told_in_words_and_reset_forgets_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me", group="g")
    started = int(time.time())
    ledger.record(HALF, run_of(1), SeenImage(0, ("yes",), ("no",), "5", "hash", "a.png", "digest", "pixels"))
    (row,) = ledger.rows()
    assert (row["attributes"], row["target"], row["group"]) == ("eyeglasses", "no=0.5, yes=0.5", "g")
    assert (row["assigned"], row["seen"], row["seed"], row["prompt_hash"], row["file"]) == ("no", "yes", "5", "hash", "a.png")
    assert type(row["time"]) is int and started <= row["time"] <= time.time()
    before = ledger.epoch
    assert not ledger.reset(2) and ledger.epoch == before and ledger.images() == 1
    assert ledger.reset(1) and ledger.images() == 0 and ledger.balances() == [] and ledger.epoch != before


# -- files that are none ---------------------------------------------------------------------------------------------------------------


def refused(path: Path, part: str) -> None:
    before = path.read_bytes()
    for act in (lambda x: x.images(), lambda x: x.reserve(HALF, run_of(1), 2, 0), lambda x: x.reset(3)):
        with pytest.raises(ValueError, match=part) as caught:
            act(Ledger(path, "me"))
        assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert path.read_bytes() == before


def test_foreign_and_damaged_files_are_refused_and_left_alone(tmp_path: Path) -> None:
    text = tmp_path / "text.sqlite"
    text.write_text("dear diary, " * 50)
    refused(text, "'text.sqlite' is damaged, or no ledger")
    foreign = tmp_path / "foreign.sqlite"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE images (id)")
    db.close()
    refused(foreign, "a database of another program")
    newer = tmp_path / "newer.sqlite"
    Ledger(newer).images()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version = 7")
    db.close()
    refused(newer, "is of version 7, and this copy of Equipoise reads version 1")
    short = tmp_path / "short.sqlite"
    ledger = Ledger(short, "me")
    for number in range(200):
        ledger.record(HALF, run_of(number), SeenImage(0, ("yes",)))
    whole = short.read_bytes()
    assert len(whole) > 20_000
    short.write_bytes(whole[:4096] + random.Random(1).randbytes(len(whole) - 4096))
    refused(short, "is damaged, or no ledger")
    short.write_bytes(whole[:200])
    refused(short, "is damaged, or no ledger")


def test_a_damaged_page_is_found_when_it_is_looked_for(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    ledger = Ledger(path, "me")
    for number in range(400):
        ledger.record(HALF, run_of(number), SeenImage(0, ("yes",)))
    ledger.check()
    data = bytearray(path.read_bytes())
    data[-8192:-4096] = bytes(4096)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="is damaged, or no ledger"):
        ledger.check()


def test_an_empty_file_becomes_a_ledger_and_a_folder_does_not(tmp_path: Path) -> None:
    empty = tmp_path / "empty.sqlite"
    empty.touch()
    Ledger(empty, "me").reserve(HALF, run_of(1), 1, 0)
    assert Ledger(empty).images() == 1
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(ValueError, match=r"cannot be written .*change the rights"):
        Ledger(tmp_path / "folder.sqlite").images()


def fill(path: Path, tell: Any) -> None:
    """Reserve until the disk is full: this process may not write beyond 60,000 bytes of a file."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        for number in range(5000):
            Ledger(path, "other").reserve(HALF, run_of(number), 50, 0)
    except ValueError as error:
        tell.send(str(error))


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process as Linux has them")
def test_a_full_disk_leaves_the_ledger_whole(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    ledger = Ledger(path, "me")
    ledger.record(HALF, run_of(0, "1"), SeenImage(0, ("yes",)))
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=fill, args=(path, there))
    process.start()
    process.join(PATIENCE)
    assert process.exitcode == 0 and here.poll() and "cannot be written" in here.recv()
    ledger.check()
    rows = ledger.rows()
    assert sum(r["state"] == "seen" for r in rows) == 1 and len(rows) > 1 and (len(rows) - 1) % 50 == 0


# -- several processes -----------------------------------------------------------------------------------------------------------------

FORK = pytest.mark.skipif(sys.platform != "linux", reason="starts processes as copies of this one")


def work(path: Path, owner: str, runs: int, tell: Any) -> None:
    """What a server does, run by run; ``tell`` gets the number of every run that is recorded."""
    ledger = Ledger(path, owner)
    for number in range(runs):
        key = RunKey(f"{owner}-{number}", "1")
        place = ledger.reserve(HALF, key, 1, number)
        ledger.confirm(HALF, place, [place.counts.index(1)])
        ledger.record(HALF, key, SeenImage(0, HALF.cells[place.counts.index(1)]))
        tell.send(number)


def start(path: Path, owner: str, runs: int) -> tuple[Any, Any]:
    """A process at work, and where it tells."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(path, owner, runs, there))
    process.start()
    there.close()
    return process, here


def told_by(pipe: Any) -> int:
    """How many runs a process that has ended told of."""
    count = 0
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.recv()
            count += 1
    return count


@FORK
def test_two_processes_lose_and_double_nothing(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    started = [start(path, owner, 100) for owner in ("a", "b")]
    for process, _ in started:
        process.join(PATIENCE)
        assert process.exitcode == 0
    rows = Ledger(path).rows()
    assert sorted((r["run"], r["place"]) for r in rows) == sorted((f"{o}-{n}", 0) for o in "ab" for n in range(100))
    assert counts(Ledger(path)) == {"no": 100, "yes": 100}


def test_threads_of_one_process_do_not_trouble_each_other(tmp_path: Path) -> None:
    """Eight meet in a file that is not there yet, many times over."""

    def work(number: int) -> int:
        return Ledger(tmp_path / f"{number // 16}.sqlite", "me").reserve(HALF, run_of(number), 1, number).counts.index(1)

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(work, range(16 * 12))) == 8 * 12


@FORK
def test_killed_at_any_moment_it_opens_and_owes_nothing(tmp_path: Path) -> None:
    path, draw, told = tmp_path / "l.sqlite", random.Random(11), 0
    Ledger(path).images()
    for number in range(20):
        process, pipe = start(path, f"p{number}", 10**6)
        pipe.recv()
        time.sleep(draw.uniform(0, 0.15))
        process.kill()
        process.join()
        told += told_by(pipe) + 1
        ledger = Ledger(path, "me", gone=lambda _: True)
        ledger.check()
        ledger.tidy()
        rows = ledger.rows()
        assert all(r["state"] == "seen" for r in rows) and told <= len(rows) <= told + number + 1
        assert abs(counts(ledger).get("no", 0) - counts(ledger).get("yes", 0)) <= 1


def test_quotas_are_reserved_in_one_transaction_with_their_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one process stands between reading the counts and writing its places, no other can read them."""
    import equipoise.methods.ledger.ledger as module

    order: list[Any] = []
    original = module.ledger_quotas

    def slow(*arguments: Any) -> list[int]:
        order.append("in")
        time.sleep(0.2)
        order.append("out")
        return original(*arguments)

    monkeypatch.setattr(module, "ledger_quotas", slow)
    with ThreadPoolExecutor(2) as pool:
        got = list(pool.map(lambda i: Ledger(tmp_path / "l.sqlite", "me").reserve(HALF, run_of(i), 1, 5).counts, range(2)))
    assert order == ["in", "out"] * 2 and sorted(got) == [[0, 1], [1, 0]]


def test_rows_are_json_and_whole_numbers(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", "me")
    ledger.reserve(HALF, run_of(1), 3, 0)
    assert json.loads(json.dumps(ledger.rows())) == ledger.rows()
    with sqlite3.connect(tmp_path / "l.sqlite") as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE images SET place = 0.5")
    db.close()
