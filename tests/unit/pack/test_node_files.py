"""Every node has a file of its own, and the node's menu name leads to it. Read off the source: no host is needed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3] / "nodes"


def menu_names(path: Path) -> list[str]:
    """Menu names of the nodes that a file defines."""
    calls = (n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call))
    schemas = (c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "schema")
    return [k.value.value for c in schemas for k in c.keywords if k.arg == "display_name" and isinstance(k.value, ast.Constant)]


def listed_modules() -> list[str]:
    """Modules that nodes/__init__.py lists, as ROOM.FILE."""
    tree = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8"))
    values = [s.value for s in tree.body if isinstance(s, ast.Assign) and getattr(s.targets[0], "id", "") == "MODULES"]
    return list(ast.literal_eval(values[0]))


def file_name(menu_name: str) -> str:
    """Name of the file that a menu name leads to."""
    return re.sub(r"[^a-z0-9]+", "_", menu_name.lower())


NODES = {f"{p.parent.name}.{p.stem}": menu_names(p) for p in sorted(ROOT.glob("*/*.py")) if menu_names(p)}


@pytest.mark.parametrize("module", sorted(NODES))
def test_a_menu_name_leads_to_the_file_of_its_node(module: str) -> None:
    assert [file_name(name) for name in NODES[module]] == [module.partition(".")[2]]


def test_all_files_with_nodes_are_listed_once() -> None:
    assert sorted(listed_modules()) == sorted(NODES) and len(NODES) >= 61
