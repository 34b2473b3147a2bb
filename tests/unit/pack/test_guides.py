"""The guides: what they link to is there, and what they name (graphs, inputs, nodes) is what the front end shows."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
GUIDES = {p.stem: p for p in sorted((ROOT / "docs").glob("guide_*.md"))}
LINKED = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES = "\n".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "nodes").rglob("*.py")))
GRAPHS = {p.stem: p.read_text(encoding="utf-8") for p in sorted((ROOT / "workflows").glob("*.json"))}


def anchors(page: str) -> set[str]:
    """What the headings of a page are called in links, as GitHub makes it."""
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", page, flags=re.M)}


def strings() -> set[str]:
    """Every string constant of the node files: ids of inputs among them."""
    return {
        n.value
        for n in ast.walk(ast.parse(SOURCES.replace("from __future__ import annotations", "")))
        if isinstance(n, ast.Constant) and isinstance(n.value, str)
    }


@pytest.mark.parametrize("path", LINKED, ids=lambda p: p.stem)
def test_links_lead_somewhere(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", page):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file) if file else path
        assert there.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{path.name}: {target}"


def test_there_is_a_guide_for_each_method_and_the_readme_links_them() -> None:
    assert list(GUIDES) == ["guide_bias_features", "guide_distribution_guidance", "guide_neuron_path"]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"(docs/{name}.md)" in readme for name in [*GUIDES, "ethics"])
    assert all("(ethics.md)" in p.read_text(encoding="utf-8") for p in GUIDES.values())


@pytest.mark.parametrize("name", sorted(GUIDES))
def test_graphs_and_inputs_that_a_guide_names_are_there(name: str) -> None:
    page = GUIDES[name].read_text(encoding="utf-8")
    graphs = [g for g in re.findall(r"\*\*((?:Lab [a-z0-9_]+|\d [A-Z][^*]+))\*\*", page)]
    assert graphs and set(graphs) <= set(GRAPHS), sorted(set(graphs) - set(GRAPHS))
    inputs = {i for i in re.findall(r"(?<!\*)\*([a-z0-9]+(?:_[a-z0-9]+)+)\*(?!\*)", page)}
    inputs |= set(re.findall(r"^\| \*([a-z_]+)\*", page, flags=re.M))
    assert inputs and inputs <= strings(), sorted(inputs - strings())


@pytest.mark.parametrize("name", sorted(GUIDES))
def test_steps_of_a_guide_are_the_groups_of_its_graph(name: str) -> None:
    """A table row that begins with a number and a full stop is the title of a group."""
    page = GUIDES[name].read_text(encoding="utf-8")
    titles = {g["title"] for text in GRAPHS.values() for g in json.loads(text)["groups"]}
    steps = set(re.findall(r"^\| (\d+\. [^|]+?) \|", page, flags=re.M))
    assert steps <= titles and (steps or name == "guide_neuron_path"), sorted(steps - titles)


def test_ethics_says_what_it_is_for() -> None:
    page = (ROOT / "docs" / "ethics.md").read_text(encoding="utf-8")
    assert {"perceived-attributes", "when-not-to-use-this", "define-your-own", "the-labellers-bias-becomes-everybodys"} <= anchors(page)
