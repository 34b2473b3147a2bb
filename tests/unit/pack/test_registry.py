"""What the registry and ComfyUI-Manager read: pyproject.toml, requirements, pictures, what is packed, and the workflows that publish."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

tomllib = pytest.importorskip("tomllib", reason="Python 3.11 or later reads TOML")
ROOT = Path(__file__).resolve().parents[3]
OS_CLASSIFIERS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
"""What ComfyUI's comfy_config knows; one that it does not know makes it drop the whole list."""


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def tracked(*words: str) -> set[str]:
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("this is no git clone, so it is not known which files belong to the pack.")
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-z", *words]
    listed = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=True).stdout
    return set(filter(None, listed.split("\0")))


def test_the_metadata_is_complete(pyproject: dict[str, Any]) -> None:
    project, comfy = pyproject["project"], pyproject["tool"]["comfy"]
    assert re.fullmatch(r"[a-z][a-z0-9_.-]{1,98}", project["name"]) and "comfyui" not in project["name"]
    assert re.fullmatch(r"0\.\d+\.\d+", project["version"])
    assert project["license"] == {"file": "LICENSE"} and (ROOT / "LICENSE").is_file()
    assert {"Repository", "Documentation", "Bug Tracker"} <= set(project["urls"])
    assert all(project["urls"][u].startswith(project["urls"]["Repository"]) for u in project["urls"])
    assert comfy["PublisherId"] and comfy["DisplayName"] == "Equipoise" and re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])
    systems = [c.removeprefix("Operating System :: ") for c in project["classifiers"] if c.startswith("Operating System")]
    assert systems and all(s.startswith(OS_CLASSIFIERS) for s in systems)
    assert f"\n## {project['version']}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_page_on_publishing_names_the_placeholders(pyproject: dict[str, Any]) -> None:
    publishing = (ROOT / "docs" / "publishing.md").read_text(encoding="utf-8")
    publisher = pyproject["tool"]["comfy"]["PublisherId"]
    assert ("placeholder" in publisher) == (publisher in publishing), "name the publisher's id as a placeholder, or no longer"
    assert ("OWNER" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")) == ("OWNER" in publishing)


@pytest.mark.parametrize(("key", "ratio", "most"), [("Icon", 1.0, 400), ("Banner", 21 / 9, 2100)])
def test_pictures_have_the_size_that_the_registry_wants(pyproject: dict[str, Any], key: str, ratio: float, most: int) -> None:
    address = pyproject["tool"]["comfy"][key]
    file = ROOT / address.split("/main/", 1)[1]
    with Image.open(file) as picture:
        assert picture.width / picture.height == pytest.approx(ratio) and picture.width <= most and file.stat().st_size < 300_000
    assert file.with_suffix(".svg").is_file()


def test_requirements_are_what_the_host_does_not_bring(pyproject: dict[str, Any]) -> None:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert lines == ["matplotlib"], "torch and the like are the host's, and a version's upper bound breaks other packs"
    assert pyproject["project"]["dynamic"] == ["dependencies"]
    assert pyproject["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": ["requirements.txt"]}


def test_every_folder_of_the_package_is_listed(pyproject: dict[str, Any]) -> None:
    rooms = {p.parent.relative_to(ROOT) for p in ROOT.rglob("__init__.py")}
    folders = {".".join(("equipoise", *p.parts)) for p in rooms if p.parts[:1] not in (("tests",), ("tools",))}
    assert set(pyproject["tool"]["setuptools"]["packages"]) == folders


def test_the_archive_holds_what_the_pack_needs_and_no_more() -> None:
    packed = tracked() - tracked("--cached", "--ignored", "--exclude-from=.comfyignore")
    needed = ("__init__.py", "pyproject.toml", "requirements.txt", "LICENSE", "README.md")
    assert set(needed) <= packed
    for folder in ("nodes", "host", "methods", "models", "metrics", "charts", "cli", "shipped", "web", "workflows"):
        assert {f for f in tracked(folder)} <= packed, f".comfyignore hides files of {folder}"
    left_out = ("tests/", "tools/", "factory/", "benchmarks/", ".github/", ".ci/", "assets/")
    assert not [f for f in packed if f.startswith(left_out) or f.endswith((".pyc", ".partial"))]
    assert packed.isdisjoint(["eslint.config.mjs", "package.json", "package-lock.json"]), "the linter is for developers only"
    assert sum((ROOT / f).stat().st_size for f in packed if (ROOT / f).is_file()) < 60 * 2**20


def test_no_file_of_the_archive_runs_text_as_code_or_installs() -> None:
    """What the registry's scan refuses."""
    packed = tracked("*.py") - tracked("--cached", "--ignored", "--exclude-from=.comfyignore")
    for name in packed:
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])(?:eval|exec)\(", text), name
        assert not re.search(r"[\"']pip[\"'],\s*[\"']install|os\.system\(|shell=True", text), name


def test_publishing_waits_for_a_changed_version_and_refuses_placeholders() -> None:
    yaml = pytest.importorskip("yaml")
    folder = ROOT / ".github" / "workflows"
    publish, tests = (yaml.safe_load((folder / f"{name}.yml").read_text(encoding="utf-8")) for name in ("publish", "tests"))
    on = publish[True]  # YAML 1.1 reads the key "on" as true
    assert on["push"] == {"branches": ["main"], "paths": ["pyproject.toml"]}
    job = publish["jobs"]["publish"]
    assert "repository_owner" in job["if"] and publish["permissions"]["issues"] == "write"
    uses = [step.get("uses", "") for step in job["steps"]]
    assert uses[-1].startswith("Comfy-Org/publish-node-action@v")
    assert any("placeholder" in step.get("run", "") for step in job["steps"][: len(uses) - 1])
    runs = json.dumps(tests["jobs"])
    assert "dev.py --python python test" in runs and "ruff check" in runs and "npm run lint" in runs and "node validate" in runs


def nodes_of(graph: dict[str, Any]) -> set[str]:
    parts = [graph, *graph.get("definitions", {}).get("subgraphs", [])]
    return {node["type"] for part in parts for node in part["nodes"] if node["type"].startswith("Equipoise")}


WITHOUT_A_TEMPLATE = {
    "EquipoiseExemptFromGuidance",
    "EquipoiseLabelFeaturesFromCSV",
    "EquipoiseLabelFeaturesFromPrompts",
    "EquipoiseLoadDataset",
    "EquipoiseLoadFeatures",
    "EquipoiseLoadNeuronPath",
    "EquipoiseMeasureFeatureEffects",
    "EquipoiseRecordFeaturesFromImages",
}
"""Nodes that no shipped graph shows; one that gets into a graph leaves this list, and none comes to it unnoticed."""


def test_every_node_is_in_a_template_or_listed() -> None:
    used = set().union(*(nodes_of(json.loads(p.read_text(encoding="utf-8"))) for p in (ROOT / "workflows").glob("*.json")))
    ids = {i for p in (ROOT / "nodes").rglob("*.py") for i in re.findall(r'node_id="(Equipoise\w+)"', p.read_text(encoding="utf-8"))}
    assert len(ids) >= 61 and used <= ids
    assert ids - used == WITHOUT_A_TEMPLATE


@pytest.mark.parametrize("path", sorted((ROOT / "web").glob("*.js")), ids=lambda p: p.stem)
def test_extensions_of_the_front_end_are_named_after_the_pack(path: Path) -> None:
    """The front end drops the second of two extensions with one name; comfy-test wants the display name in small letters before it."""
    text = path.read_text(encoding="utf-8")
    names = re.findall(r"registerExtension\(\{\s*name:\s*['\"]([^'\"]+)", text)
    assert len(names) == text.count("registerExtension(") and all(n.startswith("equipoise.") for n in names), names
