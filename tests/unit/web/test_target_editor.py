"""The editor of targets reads and writes text as methods/core/target_text.py does: its plain modules, run by Node without a browser."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from equipoise.methods.core.target_text import target_from_form
from equipoise.methods.core.targets import TargetDistribution
from equipoise.tests.equipoise_patience import PATIENCE

Run = Callable[[list[dict[str, Any]]], list[Any]]
TABLE = json.loads((Path(__file__).resolve().parents[2] / "data" / "target_texts.json").read_text(encoding="utf-8"))
KNOWN = {"eyeglasses": ["yes", "no"], "hair": ["short", "long"], "skin_tone": ["light", "medium", "dark"]}
SCRIPT = """
import { readFileSync } from 'node:fs'
import * as shares from './shares.js'
import * as target from './target_text.js'
const jobs = JSON.parse(readFileSync(0))
console.log(JSON.stringify(jobs.map(({ call, given }) => (shares[call] ?? target[call])(...given))))
"""


@pytest.fixture
def run(repository: Path, tmp_path: Path) -> Run:
    if not (node := shutil.which("node")):
        pytest.skip("install Node to test what the front end computes.")
    for name in ("shares.js", "target_text.js", "weights_text.js", "written_names.js"):
        shutil.copy(repository / "web" / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "run.js").write_text(SCRIPT, encoding="utf-8")

    def calls(jobs: list[dict[str, Any]]) -> list[Any]:
        done = subprocess.run([node, "run.js"], input=json.dumps(jobs), capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return calls


def python(given: list[Any]) -> TargetDistribution | None:
    try:
        return target_from_form(*given)
    except ValueError:
        return None


def read(run: Run, forms: list[list[Any]]) -> list[dict[str, Any]]:
    return run([{"call": "readTarget", "given": form} for form in forms])


def forms(seed: int, count: int) -> list[list[Any]]:
    """Forms as users fill them in: right, odd and wrong."""
    g = random.Random(seed)
    found = []
    for _ in range(count):
        several = ["eyeglasses x hair", "hair*skin_tone", " hair  x  eyeglasses ", "hair x hair"]
        attributes = g.choice(["eyeglasses", "skin_tone", "hats", "", *several])
        names = [a.strip() for a in attributes.replace("*", " x ").split(" x ")]
        cells = [""]
        for name in names:
            cells = [f"{c}/{k}".lstrip("/") for c in cells for k in KNOWN.get(name, ["a", "b"])]
        g.shuffle(cells)
        values = ["0.5", "1", "0", "50%", "2e-1", ".25", "3.", "-1", "1e", "%", "e", "12.5%", "0.1"]
        good = values[:6]
        parts = [f"{g.choice(['', ' '])}{c}{g.choice(['=', ' = '])}{g.choice(good if g.random() < 0.9 else values)}" for c in cells]
        parts = parts[: g.choice([1, len(parts), len(parts), len(parts)])]
        if g.random() < 0.1:
            parts.append(g.choice(["maybe=0.1", "words", parts[0], "yes==1", "yes=no"]))
        weights = g.choice([",", ", ", "\n", ",\n"]).join(parts)
        found.append([attributes, g.choice(["weights", "weights", "weights", "uniform"]), weights, g.choice([KNOWN, None])])
    return found + [["hair", "weights", w, k] for w in ("uniform", " Even", "", ",\n", "short=1") for k in (KNOWN,)]


def test_it_reads_what_the_node_reads_and_objects_where_the_node_does(run: Run) -> None:
    asked = forms(0, 1500)
    right = wrong = 0
    for form, seen in zip(asked, read(run, asked), strict=True):
        wanted = python(form)
        if wanted is None:
            assert seen["problem"] is not None, form
            wrong += 1
        else:
            assert seen["problem"] is None, (form, seen["problem"])
            assert seen["attributes"] == list(wanted.attributes) and seen["classes"] == [list(c) for c in wanted.classes], form
            assert seen["shares"] == pytest.approx(wanted.shares, abs=1e-9), form
            right += 1
    assert right > 300 and wrong > 300


def test_it_reads_and_refuses_the_texts_of_the_table(run: Run) -> None:
    free = TABLE["without_known"]
    good = [*([a, w, TABLE["known"], s] for a, w, s in TABLE["read"]), *([a, w, None, s] for a, w, _, s in free["read"])]
    bad = [*([a, w, TABLE["known"]] for a, w, _ in TABLE["refused"]), *([a, w, None] for a, w, _ in free["refused"])]
    for (attributes, weights, _, shares), seen in zip(good, read(run, [[a, "weights", w, k] for a, w, k, _ in good]), strict=True):
        assert seen["problem"] is None and seen["shares"] == pytest.approx(shares, abs=1e-6), (attributes, weights, seen)
    for (attributes, weights, _), seen in zip(bad, read(run, [[a, "weights", w, k] for a, w, k in bad]), strict=True):
        assert seen["problem"] is not None, (attributes, weights)


def test_what_it_writes_the_node_reads_as_the_shares_shown(run: Run) -> None:
    asked = [f for f in forms(1, 600) if f[1] == "weights" and python(f) is not None]
    g, jobs, wanted = random.Random(2), [], []
    for form in asked:
        target = python(form)
        assert target is not None
        cuts = sorted(g.choices(range(1001), k=len(target.shares) - 1))
        shares = [(b - a) / 1000 for a, b in zip([0, *cuts], [*cuts, 1000], strict=True)]
        wanted.append((form, target.names, shares))
        jobs.append({"call": "writeWeights", "given": [form[2], [list(c) for c in target.cells], shares]})
    for (form, names, shares), text in zip(wanted, run(jobs), strict=True):
        again = target_from_form(form[0], "weights", text, form[3])
        read_again = dict(zip(again.names, again.shares, strict=True))
        assert read_again == pytest.approx(dict(zip(names, shares, strict=True)), abs=1e-9), (form, text)


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("yes=0.5, no=0.5", "yes=0.7, no=0.3"),
        ("no = 1\n yes = 3 ", "no = 0.3\n yes = 0.7 "),
        ("yes=50%,no=50%", "yes=70%,no=30%"),
        ("yes=0.2", "yes=0.7, no=0.3"),
        ("yes=1\n", "yes=0.7\nno=0.3"),
        ("maybe=0.1, yes=0.5, what is this, no=0.4", "maybe=0.1, yes=0.7, what is this, no=0.3"),
        ("uniform", "yes=0.7, no=0.3"),
        ("", "yes=0.7, no=0.3"),
        ("words, no=0.1", "words, no=0.3, yes=0.7"),
        ("50/50", "yes=0.7, no=0.3"),
        ("yes 80 no 20", "yes=0.7, no=0.3"),
        ("half and half", "yes=0.7, no=0.3"),
        ("YES = 80%, no=20%", "YES = 70%, no=30%"),
        ('"yes"=1, no=1', '"yes"=0.7, no=0.3'),
    ],
)
def test_only_the_numbers_change_where_they_stand(run: Run, text: str, after: str) -> None:
    assert run([{"call": "writeWeights", "given": [text, [["yes"], ["no"]], [0.7, 0.3]]}]) == [after]


def test_moving_one_share_keeps_the_sum_the_proportions_and_what_is_held(run: Run) -> None:
    g, jobs = random.Random(3), []
    for _ in range(300):
        n = g.randint(2, 6)
        raw = [g.choice([0.0, g.random()]) for _ in range(n - 1)] + [g.random() + 0.01]
        shares = [s / sum(raw) for s in raw]
        i = g.randrange(n)
        held = [j for j in range(n) if j != i and g.random() < 0.25]
        jobs.append({"call": "withShare", "given": [shares, i, g.choice([0, 1, g.random(), 1.5, -1]), held]})
    for job, after in zip(jobs, run(jobs), strict=True):
        before, i, share, held = job["given"]
        room = 1 - sum(before[j] for j in held)
        free = [j for j in range(len(before)) if j != i and j not in held]
        assert sum(after) == pytest.approx(1) and min(after) >= -1e-12 and all(after[j] == before[j] for j in held)
        assert after[i] == pytest.approx(min(max(share, 0), room) if free else room, abs=1e-9)
        if (was := sum(before[j] for j in free)) > 1e-6:
            now = sum(after[j] for j in free)
            assert [after[j] for j in free] == pytest.approx([before[j] * now / was for j in free], abs=1e-9)


def test_a_marginal_of_a_joint_table_is_set_and_the_others_keep_their_proportions_within_it(run: Run) -> None:
    table = [0.1, 0.2, 0.0, 0.1, 0.4, 0.2]  # 2 x 3
    first, second, empty = run(
        [
            {"call": "withMarginal", "given": [table, [2, 3], 0, 0, 0.6]},
            {"call": "withMarginal", "given": [table, [2, 3], 1, 1, 0.1]},
            {"call": "withMarginal", "given": [[0.25, 0.75, 0, 0], [2, 2], 0, 1, 0.5]},
        ]
    )
    assert first == pytest.approx([0.2, 0.4, 0.0, 0.4 / 7, 1.6 / 7, 0.8 / 7])
    assert second[1] + second[4] == pytest.approx(0.1) and second[4] / second[1] == pytest.approx(2) and sum(second) == pytest.approx(1)
    assert empty == pytest.approx([0.125, 0.375, 0.125, 0.375])


def test_rounded_shares_sum_to_one(run: Run) -> None:
    g = random.Random(4)
    lists = [[s / sum(raw) for s in raw] for raw in ([g.random() for _ in range(g.randint(1, 24))] for _ in range(200))]
    for shares, after in zip(lists, run([{"call": "rounded", "given": [shares]} for shares in lists]), strict=True):
        assert round(1000 * sum(after), 6) == 1000 and max(abs(a - s) for a, s in zip(after, shares, strict=True)) < 1e-3
