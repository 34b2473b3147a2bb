"""Where matplotlib cannot be imported, a chart says so; nothing else of the pack needs it."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

CHARTS = sorted((Path(__file__).resolve().parents[3] / "charts").rglob("*.py"))

WITHOUT = """
import importlib, json, logging, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)
sys.meta_path.insert(0, Blocked())
said = []
class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("equipoise").addHandler(Keep())
import numpy as np
for name in CHARTS:
    importlib.import_module(name)
from equipoise.charts.core.curves import training_curves
from equipoise.charts.core.histogram import histogram
from equipoise.charts.core.missing import BACKGROUND
from equipoise.charts.core.sheet import contact_sheet, stacked
from equipoise.metrics.panels import make_panels
panels = make_panels({"hair": np.eye(2)[[0, 1, 1, 1]]}, {"hair": ("short", "long")})
ground = [int(BACKGROUND[i:i + 2], 16) for i in (1, 3, 5)]
drawn = [histogram(panels), training_curves({"a": [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}]}, "t")]
sheet = contact_sheet(np.zeros((3, 3, 8, 8)), labels=[0, 1, 1], classes=("short", "long"), caption="three")
print(json.dumps({
    "shapes": [list(p.shape) for p in drawn], "ground": [bool((p[0, 0] == ground).all()) for p in drawn],
    "ink": [int((p.max(-1) < 128).sum()) for p in drawn], "kinds": [str(p.dtype) for p in [*drawn, stacked([sheet, drawn[0]])]],
    "sheet": list(sheet.shape), "words": int((sheet[:40].max(-1) < 128).sum()), "said": said, "python": sys.executable,
}))
"""


def test_a_chart_without_matplotlib_is_a_picture_that_says_so(fresh_python: Callable[..., str]) -> None:
    folder = Path(__file__).resolve().parents[3]
    names = [".".join(("equipoise", *p.relative_to(folder).with_suffix("").parts)) for p in CHARTS if p.stem != "__init__"]
    found = json.loads(fresh_python(f"CHARTS = {names!r}\n{WITHOUT}"))
    assert [shape[1:] for shape in found["shapes"]] == [[960, 3]] * 2 and all(60 < shape[0] < 300 for shape in found["shapes"])
    assert all(found["ground"]) and all(ink > 500 for ink in found["ink"]) and set(found["kinds"]) == {"uint8"}
    assert found["words"] > 20, "sheets are drawn with Pillow's font"
    assert len(found["said"]) == 2
    for text in found["said"]:
        assert "matplotlib cannot be imported (No module named 'matplotlib" in text
        assert f"{found['python']} -m pip install matplotlib" in text and "restart ComfyUI" in text


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)]


def test_every_function_that_makes_a_figure_has_a_stand_in() -> None:
    made = 0
    for path in CHARTS:
        for function in functions(path):
            calls = {c.func.id for c in ast.walk(function) if isinstance(c, ast.Call) and isinstance(c.func, ast.Name)}
            if "new_figure" in calls:
                made += 1
                marks = {d.id for d in function.decorator_list if isinstance(d, ast.Name)}
                assert "chart" in marks, f"{path.name}: {function.name} makes a figure and lacks @chart"
    assert made > 10


@pytest.mark.parametrize("path", CHARTS, ids=lambda p: p.stem)
def test_no_file_imports_matplotlib_when_it_is_imported(path: Path) -> None:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None) or ""]
        assert not any(n.split(".")[0] == "matplotlib" for n in names)
