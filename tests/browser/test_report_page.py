"""The fairness report in a real Chromium, at phone and desktop width: it asks no host, cuts nothing off, and fits the window.

What it needs: see conftest.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equipoise.charts.report.report_blocks import Sheet
from equipoise.charts.report.report_html import html_page
from equipoise.charts.report.report_page import report_page
from equipoise.metrics.findings import ComparisonSettings, Embedding, Reader, findings_of

CLASSES = {"eyeglasses": ("yes", "no"), "a_rather_long_attribute_name": ("class_with_a_long_name", "another", "third"), "hair": ("a", "b")}


def readings(n: int, seed: int) -> dict[str, np.ndarray]:
    g = np.random.default_rng(seed)
    return {a: g.dirichlet(np.full(len(c), 0.3), n) for a, c in CLASSES.items()}


def page(judges: int) -> str:
    g = np.random.default_rng(0)
    readers = [
        Reader(f"judge_number_{i}_with_a_long_file_name.safetensors", CLASSES, *(readings(96, i + k) for k in (0, 5, 9)))
        for i in range(judges)
    ]
    features = [Embedding(n, *(g.normal(size=(96, 8)) for _ in range(3)), clip=c) for n, c in (("judge", False), ("clip", True))]
    goal = (("eyeglasses", "hair"), (0.25,) * 4)
    prompt = features[1].base, features[1].steered, g.normal(size=(1, 8))
    found = findings_of(readers, [goal] * judges, features, prompt=prompt, comparison=ComparisonSettings(batch=16))
    small, large = (g.integers(0, 256, (24, 3, s, s), dtype=np.uint8) for s in (32, 128))
    sheets = [Sheet("eyeglasses: yes", small, 30, 96, large, 40, 96), Sheet("eyeglasses: no", None, 0, 96, small, 24, 96)]
    settings = [("Load Checkpoint (CheckpointLoaderSimple)", "all", f"ckpt_name={'very_long_name' * 9}.safetensors")]
    files = [("model.safetensors", "checkpoints", "6.9 GB", "0123456789abcdef" * 4)]
    return html_page(report_page(found, sheets, "A report", "of today", ["A warning " * 20], settings, files, ["Software 1.0"]))


@pytest.mark.parametrize("judges", [1, 2])
def test_it_looks_right_on_a_phone_and_on_a_screen(script: Any, tmp_path: Path, judges: int) -> None:
    (tmp_path / "report.html").write_text(page(judges), encoding="utf-8")
    seen = script("report.mjs", tmp_path / "report.html", tmp_path / "shot", 320, 390, 768, 1280)
    assert [s["width"] for s in seen] == [320, 390, 768, 1280] and all(s["images"] == 72 for s in seen)


def test_a_page_that_asks_a_host_is_caught(script: Any, tmp_path: Path) -> None:
    """The policy in the page stops what is put into it, and the script notices."""
    bad = page(1).replace("</main>", '<img src="http://127.0.0.1:9/x.png" alt=""></main>')
    (tmp_path / "report.html").write_text(bad, encoding="utf-8")
    (report,) = script("report.mjs", tmp_path / "report.html", tmp_path / "shot", 390, code=1)
    assert (report["asked"] or any("Content Security Policy" in e for e in report["errors"])) and report["broken"] == 1
