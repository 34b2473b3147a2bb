"""Every node has a help page, and no input or output goes without a tooltip. Read off the source: no host is needed."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[3]
NODE_FILES = sorted(p for p in (ROOT / "nodes").rglob("*.py") if "put(" in p.read_text(encoding="utf-8"))
"""Files that declare inputs or outputs."""
GIVEN_TOOLTIPS = ("fixed_seed", "sampler_seed")
"""Functions of nodes/core/inputs.py that take the tooltip as their argument."""
DOCS = ROOT / "web" / "docs"
COMPOSES = (
    "BalanceLedger",
    "BiasFeatureSteer",
    "DistributionGuidance",
    "DistributionGuidanceKSampler",
    "ExemptFromGuidance",
    "RecordFeatures",
    "SteerSweep",
    "TargetDistribution",
)
"""Nodes that guide or steer, or say what is to be reached: their pages name the list of what was run together with them."""
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
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in GIVEN_TOOLTIPS:
            found.append(("seed", literal(call.args[0], names)))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ("Input", "Output"):
            tip = next((k.value for k in call.keywords if k.arg == "tooltip"), None)
            if isinstance(tip, ast.Name) and tip.id == "tooltip":
                continue
            first = call.args[0] if call.args else None
            name = literal(first, names) or (first.id if isinstance(first, ast.Name) else "")  # a helper may be given the id
            found.append((name, literal(tip, names)))
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
    assert parts[:2] == ["Inputs", "Outputs"] and parts[-1] == "Limits" and len(parts) == len(set(parts))
    assert {"Works with", "Source"} <= set(parts)
    assert all(text.strip() for text in re.split(r"^## .+$", page, flags=re.M))
    assert page.isascii() and "  \n" not in page


@pytest.mark.parametrize("node", sorted(PAGES))
def test_a_page_shows_the_nodes_own_picture_and_says_what_it_is(node: str) -> None:
    """Before the inputs: the picture, which the front end looks for beside the page, with a text for who cannot see it, and a caption."""
    found = re.findall(r"^!\[(.*)\]\((.+)\)$", PAGES[node], flags=re.M)
    assert [path for _, path in found] == [f"img/{node}.webp"] and len(found[0][0]) >= 15
    assert re.search(rf"\(img/{node}\.webp\)\n\n\*[^*]{{20,}}\*\n\n## Inputs\n", PAGES[node])
    rendered = ("EquipoiseLabelFeaturesWithCLIP", "EquipoiseCLIPAttributeClassifier", "EquipoiseZeroShotAttributeHead")
    assert ("rendering" in PAGES[node].split("## Inputs")[0]) == (node in rendered)
    with Image.open(DOCS / "img" / f"{node}.webp") as picture:
        assert picture.format == "WEBP" and 400 <= picture.width <= 800 and 80 <= picture.height <= 960


def test_pictures_are_small_and_all_are_shown() -> None:
    files = sorted((DOCS / "img").iterdir())
    assert [f.name for f in files] == [f"{node}.webp" for node in sorted(PAGES)]
    assert sum(f.stat().st_size for f in files) < 1_500_000 and max(f.stat().st_size for f in files) < 40_000


@pytest.mark.parametrize("node", sorted(PAGES))
def test_a_page_gives_an_equation_or_says_that_there_is_none(node: str) -> None:
    page = PAGES[node]
    how = page[page.index("## Outputs") :]
    assert re.search(r"\S (=|<-|>=) \S", how) or "No equation" in page.split("## Source")[1]
    source = page.split("## Source")[1].split("## Limits")[0]
    assert not re.search(r"^([-+*>#=] |\d+[.)] )", source, flags=re.M), "a wrapped formula would become a list"


@pytest.mark.parametrize("node", COMPOSES)
def test_pages_of_guidance_and_steering_name_the_list_of_partners(node: str) -> None:
    assert "docs/composition.md" in PAGES[f"Equipoise{node}"].split("## Works with")[1].split("## Source")[0]
    assert (ROOT / "docs" / "composition.md").is_file()


WITHOUT_ATTRIBUTES = {"EquipoiseEmptyPixelLatent", "EquipoiseLoadUnconditionalDiffusion", "EquipoiseImagesInBatchOrder"}


@pytest.mark.parametrize("node", sorted(set(PAGES) - WITHOUT_ATTRIBUTES))
def test_a_page_that_names_attributes_says_what_they_are_not(node: str) -> None:
    page = " ".join(PAGES[node].split())
    assert re.search(r"perceived|no statement about people", page)
