"""Every node has a help page, and no input or output goes without a tooltip. Read off the source: no host is needed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NODE_FILES = sorted(p for p in (ROOT / "nodes").glob("*.py") if p.stem not in ("__init__", "sockets"))
TOLD = ("fixed_seed", "drawn_seed")
"""Functions of nodes/shared_inputs.py that are handed the tooltip."""
PAGES = {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "web" / "docs").glob("*.md"))}


def literal(node: ast.expr | None, names: dict[str, str]) -> str:
    """Text of a string expression: constants, f-strings (their fixed parts) and the module's own string constants."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(literal(v, names) for v in node.values)
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    return ""


def sockets(path: Path) -> list[tuple[str, str]]:
    """(name, tooltip) of every Input and Output that a file declares, itself or by a function that is handed the tooltip."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {t.id: literal(s.value, {}) for s in tree.body if isinstance(s, ast.Assign) for t in s.targets if isinstance(t, ast.Name)}
    found = []
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in TOLD:
            found.append(("seed", literal(call.args[0], names)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("Input", "Output"):
            tip = next((k.value for k in call.keywords if k.arg == "tooltip"), None)
            if isinstance(tip, ast.Name) and tip.id == "tooltip":
                continue
            found.append((literal(call.args[0], names) if call.args else "", literal(tip, names)))
    return found


def node_names() -> dict[str, str]:
    """Node id -> display name, as the files state them."""
    text = "\n".join(p.read_text(encoding="utf-8") for p in NODE_FILES)
    return dict(re.findall(r'node_id="(\w+)",\s*display_name="([^"]+)"', text))


@pytest.mark.parametrize("path", NODE_FILES, ids=lambda p: p.stem)
def test_every_input_and_output_has_a_tooltip(path: Path) -> None:
    found = sockets(path)
    assert found
    for name, tip in found:
        assert name and len(tip) >= 10, f"{path.name}: '{name}' has the tooltip '{tip}'"


def test_there_is_one_page_per_node() -> None:
    assert sorted(PAGES) == sorted(node_names())


@pytest.mark.parametrize("node", sorted(PAGES))
def test_a_page_has_its_parts(node: str) -> None:
    page = PAGES[node]
    assert page.startswith(f"# {node_names()[node]}\n")
    parts = re.findall(r"^## (.+)$", page, flags=re.M)
    assert set(parts) >= {"Inputs", "Outputs", "Works with", "Limits"} and len(parts) == len(set(parts))
    assert page.isascii() and "  \n" not in page


@pytest.mark.parametrize("node", sorted(set(PAGES) - {"EquipoiseEmptyPixelLatent", "EquipoiseLoadUnconditionalDiffusion"}))
def test_a_page_that_names_attributes_says_what_they_are_not(node: str) -> None:
    """The two nodes left out know nothing of attributes."""
    page = " ".join(PAGES[node].split())
    assert re.search(r"perceived|no statement about people", page)
