"""locales/ against the schemas: every text is translated, no translation is stale, and the hosts hand them out.

``python tools/equipoise_locales.py`` makes the files; with ``missing`` it says what is to be translated.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import Server
from equipoise_locales import (
    LANGUAGES,
    LOCALES,
    TABLES,
    all_faults,
    english,
    files,
    front_end,
    lost,
    main_english,
    missing,
    short,
    stale,
    table_of,
    translated,
    wanted,
)


@pytest.fixture(scope="module")
def schemas(host: Any) -> list[Any]:
    """V3 schemas of all nodes."""
    from equipoise.nodes import all_nodes

    return [node.define_schema() for node in all_nodes()]


@pytest.fixture(scope="module")
def nodes(schemas: list[Any]) -> dict[str, Any]:
    return english(schemas)


@pytest.fixture(scope="module")
def main(schemas: list[Any]) -> dict[str, Any]:
    return main_english(schemas)


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_text_is_missing_or_stale(nodes: dict[str, Any], main: dict[str, Any], language: str) -> None:
    table = table_of(language)
    assert not missing(table, nodes, main)
    assert not stale(table, nodes, main)


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_what_they_have_to(nodes: dict[str, Any], language: str) -> None:
    """Numbers, quoted words, paths, placeholders, names of other nodes, that classes are perceived; and no sign of the message format."""
    assert all_faults(language, table_of(language), nodes) == {}


@pytest.mark.parametrize("language", LANGUAGES)
def test_nodes_have_names_of_their_own(nodes: dict[str, Any], language: str) -> None:
    table = table_of(language)
    found = [short(table.get(n["display_name"], n["display_name"])) for n in nodes.values()]
    assert len(set(found)) == len(nodes)


def test_files_are_those_that_the_script_makes(nodes: dict[str, Any], main: dict[str, Any]) -> None:
    made = files(nodes, main)
    assert {p.parent.name for p in made} == {"en", "translations", *LANGUAGES}
    different = [f"{p.parent.name}/{p.name}" for p, content in made.items() if not p.is_file() or p.read_text(encoding="utf-8") != content]
    assert not different, "run: python tools/equipoise_locales.py"
    assert {p for folder in (LOCALES, TABLES) for p in folder.rglob("*") if p.is_file()} == set(made)


def test_a_changed_text_is_missing_and_its_translation_stale(nodes: dict[str, Any], main: dict[str, Any]) -> None:
    table = dict.fromkeys(wanted(nodes, main), "...")
    assert (missing(table, nodes, main), stale(table, nodes, main)) == ([], [])
    changed, old = copy.deepcopy(nodes), nodes["EquipoiseLoadADP"]["inputs"]["adp_name"]["tooltip"]
    changed["EquipoiseLoadADP"]["inputs"]["adp_name"]["tooltip"] = "Another text."
    assert (missing(table, changed, main), stale(table, changed, main)) == (["Another text."], [old])
    assert missing({**table, old: " "}, nodes, main) == [old]


def test_what_a_translation_lost_is_found(nodes: dict[str, Any]) -> None:
    table = {"Load ADP": "ADP laden (Load ADP)", "clip_vision": "CLIP-Bild"}
    text = "Load ADP reads 'kl' and {n} of 2,048 files in models/equipoise/adp, or clip_vision."
    assert lost(text, "ADP laden liest 'kl' und {n} von 2.048 Dateien in models/equipoise/adp, oder CLIP-Bild.", table, nodes) == []
    faults = ["the number 2048", "kl", "models/equipoise/adp", "clip_vision", "{n}", "Load ADP (ADP laden)"]
    assert lost(text, "Etwas anderes.", table, nodes) == faults


def test_texts_of_the_front_end_are_read_off_its_code(tmp_path: Path) -> None:
    code = """export function text(key, english) {}
    // text('bar.none', 'in a comment')
    const a = node.text('not.ours'), b = text('bar.step', 'step {step}', told), c = text( 'bar.own',
      "'uniform' it is"), d = ['bar.two', 'two', {}], e = text(...d)
    """
    (tmp_path / "a.js").write_text(code, encoding="utf-8")
    assert front_end(tmp_path) == {"bar.step": "step {step}", "bar.own": "'uniform' it is", "bar.two": "two"}
    (tmp_path / "b.js").write_text("text(`bar.${name}`, 'computed')", encoding="utf-8")
    with pytest.raises(ValueError, match="b.js calls text"):
        front_end(tmp_path)
    (tmp_path / "b.js").write_text("const f = ['bar.far', english]", encoding="utf-8")
    with pytest.raises(ValueError, match="beside 'bar.far'"):
        front_end(tmp_path)
    (tmp_path / "b.js").write_text("text('bar.step', 'another')", encoding="utf-8")
    with pytest.raises(ValueError, match="two texts"):
        front_end(tmp_path)


def test_signs_of_the_message_format_reach_no_front_end(nodes: dict[str, Any], main: dict[str, Any]) -> None:
    """English tooltips with them are left out: both front ends then show the schema's own."""
    defs, _ = translated({}, nodes, main)
    sockets = [s for n in defs.values() for s in [*n["inputs"].values(), *n["outputs"].values()]]
    assert len([s for s in sockets if "tooltip" not in s]) >= 8
    shown = [*(s.get("tooltip", "") for s in sockets), *(n[k] for n in defs.values() for k in ("display_name", "description"))]
    assert not [t for t in shown if set(t) & set("{}|@")]


def test_the_hosts_hand_them_out(server: Server, nodes: dict[str, Any]) -> None:
    handed = server.get("/i18n")
    for language in ("en", *LANGUAGES):
        for part in ("nodeDefs", "main"):
            own = json.loads((LOCALES / language / f"{part}.json").read_text(encoding="utf-8"))
            found = handed[language].get("nodeDefs", {}) if part == "nodeDefs" else handed[language]
            assert {k: found[k] for k in own} == own, f"{language}/{part}"
        assert set(handed[language]["nodeDefs"]) >= set(nodes)
