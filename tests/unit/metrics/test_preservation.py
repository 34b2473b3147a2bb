"""What an edit left alone, against a definition written out, and at its extremes."""

from __future__ import annotations

import numpy as np
import pytest
from equipoise.metrics.preservation import cramers_v, preservation, variance_ratio
from hypothesis import given
from hypothesis import strategies as st

ATTRIBUTES = {"glasses": 2, "hair": 3, "skin": 2}
Labels = dict[str, list[int]]


def read(labels: Labels) -> dict[str, np.ndarray]:
    """Class probabilities that are sure of these labels."""
    return {a: np.eye(k)[labels[a]] for a, k in ATTRIBUTES.items()}


def drawn(n: int) -> st.SearchStrategy[Labels]:
    return st.fixed_dictionaries({a: st.lists(st.integers(0, k - 1), min_size=n, max_size=n) for a, k in ATTRIBUTES.items()})


pairs = st.integers(1, 12).flatmap(lambda n: st.tuples(drawn(n), drawn(n)))


@given(pairs)
def test_shares_are_those_of_the_definition(pair: tuple[Labels, Labels]) -> None:
    before, after = pair
    report = preservation(read(before), read(after), ["glasses"], draws=0)
    moved = [i for i in range(report.n) if before["glasses"][i] != after["glasses"][i]]
    others = [i for i in range(report.n) if i not in moved]
    assert report.changed == len(moved)
    for kept, rows in ((report.kept_changed, moved), (report.kept_unchanged, others)):
        for a in ("hair", "skin"):
            stayed = [before[a][i] == after[a][i] for i in rows]
            assert kept[a].n == len(rows) and kept[a].value == (pytest.approx(np.mean(stayed)) if rows else None)
    for a in ("hair", "skin"):
        change = [after[a].count(k) - before[a].count(k) for k in range(ATTRIBUTES[a])]
        assert report.drift[a] == pytest.approx(100 * max(map(abs, change)) / report.n)


@given(pairs)
def test_an_edit_of_what_was_asked_alone_keeps_everything(pair: tuple[Labels, Labels]) -> None:
    before, after = pair
    report = preservation(read(before), read({**before, "glasses": after["glasses"]}), ["glasses"], draws=0)
    assert report.lowest_kept == (1.0, 1.0) and set(report.drift.values()) == {0.0} and report.unsure == 0


def test_intervals_hold_the_share_and_narrow_with_more_images() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for n in (50, 800):
        before = {a: rng.integers(0, k, n).tolist() for a, k in ATTRIBUTES.items()}
        after = {**before, "hair": [(h + int(rng.random() < 0.2)) % 3 for h in before["hair"]]}
        share = preservation(read(before), read(after), ["glasses"]).kept_unchanged["hair"]
        assert share.low <= share.value <= share.high and 0.6 < share.value < 0.95
        widths.append(share.high - share.low)
    assert widths[1] < widths[0] / 2


def test_doubtful_readings_of_what_was_asked_are_counted() -> None:
    before = {"glasses": np.array([[0.9, 0.1]] * 4), "hair": np.eye(3)[[0] * 4]}
    after = {**before, "glasses": np.array([[0.9, 0.1]] * 3 + [[0.6, 0.4]])}
    assert preservation(before, after, ["glasses"]).unsure == pytest.approx(25)


def test_cramers_v_is_0_for_independent_and_1_for_equal_labels() -> None:
    assert cramers_v([0, 0, 1, 1], [0, 1, 0, 1]) == pytest.approx(0)
    assert cramers_v([0, 0, 1, 1], [5, 5, 3, 3]) == pytest.approx(1)
    assert cramers_v([0, 0, 0], [0, 1, 2]) == 0


def test_association_rises_where_an_edit_ties_attributes_together() -> None:
    before = {"glasses": [0, 1] * 20, "hair": [0, 0, 1, 1] * 10, "skin": [0] * 40}
    report = preservation(read(before), read({**before, "glasses": before["hair"]}), ["glasses"])
    assert report.association["hair"] == pytest.approx(1) and report.association["skin"] == 0


def test_variance_ratio_sees_images_that_become_alike() -> None:
    x = np.random.default_rng(0).normal(size=(200, 8))
    assert variance_ratio(x, x) == pytest.approx(1) and variance_ratio(x, 0.5 * x + 3) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="two or more vectors"):
        variance_ratio(x, x[:1])


@pytest.mark.parametrize("change", [lambda r: {"hair": r["hair"]}, lambda r: {a: p[:1] for a, p in r.items()}])
def test_sets_that_do_not_pair_are_refused(change: object) -> None:
    before = read({"glasses": [0, 1], "hair": [0, 1], "skin": [0, 1]})
    with pytest.raises(ValueError, match="pairs need the same images"):
        preservation(before, change(before), ["glasses"])
