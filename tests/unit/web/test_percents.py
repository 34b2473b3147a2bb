"""Percentages of a bar add up to 100, and none is off by a point or more; run by Node without a browser."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from equipoise.tests.equipoise_patience import PATIENCE

SCRIPT = "import { percents } from './percents.js'\nconsole.log(JSON.stringify(JSON.parse(process.argv[2]).map(percents)))\n"
FIXED = [[0.435, 0.565], [1 / 3, 1 / 3, 1 / 3], [0.125] * 8, [1, 0], [0.005, 0.995], [0.5004, 0.4996]]


def test_percentages_are_rounded_by_the_largest_remainder(repository: Path, tmp_path: Path) -> None:
    if not (node := shutil.which("node")):
        pytest.skip("install Node to test what the front end computes.")
    shutil.copy(repository / "web" / "percents.js", tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    (tmp_path / "run.js").write_text(SCRIPT, encoding="utf-8")
    draw = random.Random(0)
    drawn = [[draw.random() for _ in range(draw.randint(2, 8))] for _ in range(200)]
    shares = FIXED + [[x / sum(row) for x in row] for row in drawn]
    command = [node, "run.js", json.dumps(shares)]
    rounded = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, check=True).stdout)
    for exact, whole in zip(shares, rounded, strict=True):
        assert sum(whole) == 100 and all(abs(100 * x - n) < 1 for x, n in zip(exact, whole, strict=True)), (exact, whole)
    assert rounded[1] == [34, 33, 33]
