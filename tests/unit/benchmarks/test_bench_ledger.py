"""``bench ledger`` without a server: the contract's keys, what is averaged, and that a queue begins anew."""

from __future__ import annotations

from pathlib import Path

import pytest
from equipoise.benchmarks.host.ledger import SEEDS, TARGETS, Queue, forget, ledger_counts, ledger_graph, ledger_result
from equipoise.methods.core.target_text import parse_target
from equipoise.methods.ledger.ledger import Ledger, RunKey, SeenImage


def test_the_contracts_keys_are_means_over_the_queues_of_a_target() -> None:
    figures = {}
    for target in TARGETS:
        for i, seed in enumerate(SEEDS):
            figures[Queue(target, True, seed, 256)] = {"fd": 0.01 * i}
            figures[Queue(target, False, seed, 256)] = {"fd": 0.1}
    two = {t: {"rows_lost": 1, "rows_double": 2} for t in TARGETS}
    told = ledger_result(figures, two, {"opened": 20}, 256)
    assert set(told) >= {"batch", "n", "fd_with", "fd_without", "rows_lost", "rows_double", "seeds", "notes"}
    assert (told["batch"], told["n"], told["rows_lost"], told["rows_double"]) == (1, 256, 2, 4)
    assert told["fd_with"] == {t: pytest.approx(0.015) for t in TARGETS} and told["fd_without"] == {t: pytest.approx(0.1) for t in TARGETS}
    assert told["seeds"] == list(SEEDS) and len(SEEDS) == 4 and len(told["queues"]) == 16


def test_with_and_without_differ_in_one_link() -> None:
    one, other = ledger_graph("skin_tone", 7, "name"), ledger_graph("skin_tone", 7, "name", guided_by_it=False)
    assert one["draw"]["inputs"].pop("ledger") == ["ledger", 0] and one == other
    assert one["latent"]["inputs"]["batch_size"] == 1 and one["record"]["inputs"]["ledger"] == ["ledger", 0]
    links = [v for n in one.values() for v in n["inputs"].values() if isinstance(v, list)]
    assert all(link[0] in one for link in links)
    assert len({len(t.split(",")) for t in TARGETS.values()}) == 2


def test_a_queue_begins_anew_and_tells_what_the_ledger_saw(tmp_path: Path) -> None:
    path, folder = tmp_path / "ledgers" / "l.sqlite", tmp_path / "pictures"
    target = parse_target(TARGETS["eyeglasses"], {"eyeglasses": ("no", "yes")})
    ledger = Ledger(path, "me")
    for i, (assigned, seen) in enumerate([("no", "no"), ("yes", "no"), ("yes", "yes")]):
        ledger.record(target, RunKey(str(i), "1"), SeenImage(0, (seen,), (assigned,)))
    assert ledger_counts(ledger.rows()) == {"assigned": {"no": 1, "yes": 2}, "seen": {"no": 2, "yes": 1}, "hits": 2}
    folder.mkdir()
    (folder / "a.png").touch()
    beside = path.with_name("l2.sqlite")
    beside.touch()
    forget(path, folder)
    assert not folder.exists() and not path.exists() and beside.exists() and ledger.images() == 0
