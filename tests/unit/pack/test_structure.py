"""Imports follow docs/architecture.md: floors point down, folders form no cycle, systems know each other only by the table."""

from __future__ import annotations

import ast
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BELOW = {
    "models": set(),
    "metrics": {"models"},
    "charts": {"models", "metrics"},
    "methods": {"models", "metrics"},
    "host": {"models", "metrics", "charts", "methods"},
    "nodes": {"models", "metrics", "charts", "methods", "host"},
    "shipped": {"models"},
    "cli": {"models", "metrics", "charts", "methods", "shipped"},
    "factory": {"models", "metrics", "charts", "methods", "host", "shipped", "cli"},
    "benchmarks": {"models", "metrics", "charts", "methods", "host", "nodes", "shipped", "cli", "factory"},
}
"""Floor -> floors that it may import."""
SYSTEMS = {
    "core": set(),
    "small_models": {"core"},
    "prompts": {"core", "ledger"},
    "data": {"core", "small_models"},
    "labels": {"core", "data"},
    "datasets": {"core", "data", "labels"},
    "adp": {"core", "data", "labels"},
    "sae": {"core", "data"},
    "ledger": {"core", "labels"},
    "report": {"core", "data", "labels", "ledger"},
    "neuron_path": {"core", "labels"},
    "guidance": {"core", "data", "labels", "adp", "ledger"},
    "bias_features": {"core", "data", "labels", "adp", "sae", "ledger", "guidance"},
}
"""Room -> rooms that it may import, on any floor."""
MOST_MODULES, MOST_OF_THE_PATCH = 20, 20
PROTOCOLS = {"run", "add_arguments"}
"""Functions that every command and every benchmark has."""


@cache
def modules() -> dict[str, Path]:
    """Dotted name without the package's own -> file, packages' __init__ left out."""
    files = [p for floor in BELOW for p in (ROOT / floor).rglob("*.py") if p.name != "__init__.py"]
    return {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in files}


@cache
def imports() -> dict[str, set[str]]:
    """Module -> modules of the pack that it imports, wherever in the file."""
    found = {}
    for name, path in modules().items():
        package = name.split(".")[:-1]
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = package[: len(package) - node.level + 1]
                module = ".".join([*base, *([node.module] if node.module else [])])
                targets |= {f"{module}.{a.name}" if f"{module}.{a.name}" in modules() else module for a in node.names}
        found[name] = targets
    return found


def room(module: str) -> str | None:
    """The room of a module of a floor that has rooms."""
    floor, *inner = module.split(".")
    return inner[0] if len(inner) > 1 and floor in ("nodes", "host", "charts", "methods") else None


def test_floors_import_only_floors_below() -> None:
    wrong = {
        (name, target)
        for name, targets in imports().items()
        for target in targets
        if target.split(".")[0] not in BELOW[name.split(".")[0]] | {name.split(".")[0]}
    }
    assert not wrong


def test_systems_know_each_other_by_the_table_alone() -> None:
    wrong = set()
    for name, targets in imports().items():
        for target in targets:
            if room(name) and room(target) and room(target) != room(name) and room(target) not in SYSTEMS[room(name)]:
                wrong.add((name, target))
    assert not wrong


def test_folders_form_no_cycle() -> None:
    edges = defaultdict(set)
    for name, targets in imports().items():
        edges[name.rpartition(".")[0]] |= {t.rpartition(".")[0] for t in targets if t in modules()} - {name.rpartition(".")[0]}
    while free := [folder for folder, targets in edges.items() if not targets & edges.keys()]:
        for folder in free:
            del edges[folder]
    assert not edges, f"cycles run through {sorted(edges)}"


def closure(module: str) -> set[str]:
    """A module and all modules of the pack that it needs."""
    seen, todo = set(), [module]
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += imports().get(name, ())
    return seen


def test_the_patch_needs_few_modules() -> None:
    needed = closure("host.core.patch")
    assert len(needed) <= MOST_OF_THE_PATCH, sorted(needed)


def test_no_folder_holds_many_modules() -> None:
    files: Iterable[Path] = (p for p in ROOT.rglob("*.py") if p.name != "__init__.py" and "node_modules" not in p.parts)
    sizes = Counter(str(p.parent.relative_to(ROOT)) for p in files)
    assert {folder: n for folder, n in sizes.items() if n > MOST_MODULES} == {}


def test_no_two_classes_or_public_functions_share_a_name() -> None:
    places = defaultdict(list)
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert {n: where for n, where in places.items() if len(where) > 1 and n not in PROTOCOLS} == {}


@pytest.mark.parametrize("name", sorted({".".join(m.split(".")[:-1]) for m in modules()}))
def test_every_folder_says_what_it_holds(name: str) -> None:
    file = ROOT.joinpath(*name.split(".")) / "__init__.py"
    assert len((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split()) >= 8, f"{file} lacks a docstring"


def test_no_function_takes_many_parameters() -> None:
    long = []
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                a = node.args
                count = len([x for x in [*a.posonlyargs, *a.args, *a.kwonlyargs] if x.arg not in ("self", "cls")])
                long += [(name, node.name, count)] * (count > 8)
    assert not long
