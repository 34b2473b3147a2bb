"""The files in locales/, made from the nodes' schemas and one table per language.

    python tools/equipoise_locales.py             write locales/<language>/{nodeDefs,main}.json, and put the tables in order
    python tools/equipoise_locales.py missing     print, language by language, what is to be translated and what is stale
    python tools/equipoise_locales.py missing ko  the same for one, as JSON to fill in

English is what the schemas say, and what the front-end extension says: the calls text('key', 'English text') in web/*.js, which come under
the key "equipoise" of main.json. ``translations/<language>.json`` holds English text -> translation. A text that changes is another key:
so it is missing, and the old one stale. Names of sockets may be left out, where they stay as they are.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

LANGUAGES = ("zh", "ja", "ko", "es", "de", "fr")
"""All languages but English. The front end knows all of them except German; it shows English for a language that it does not know."""
LOCALES = Path(__file__).resolve().parents[1] / "locales"
TABLES = Path(__file__).resolve().parent / "translations"
OF_MESSAGES = set("{}|@")
"""Characters by which the front end's message format would read more than text (https://vue-i18n.intlify.dev/guide/essentials/syntax)."""
PERCEIVED = {"zh": "感知", "ja": "知覚", "ko": "지각", "es": "percib", "de": "wahrgenommen", "fr": "perçu"}
"""How each language says that classes are what somebody sees in a picture."""
_CALL = re.compile(r"""(?:(?<![\w.])text\(|\[)\s*'(\w+\.[\w.]+)',\s*('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")""")
_BRACKETS = re.compile(r"\s*[(\uff08][^()\uff08\uff09]*[)\uff09]$")

Table = Mapping[str, str]
"""English text -> translation."""


def english(schemas: list[Any]) -> dict[str, Any]:
    """Build nodeDefs.json in English from the nodes' schemas.

    node id -> display_name, description, inputs by id and outputs by index, each with name and tooltip.
    """
    by_node = {}
    for schema in schemas:
        inputs = {s.id: {"name": s.display_name or s.id, "tooltip": s.tooltip} for s in schema.inputs}
        outputs = {str(i): {"name": s.display_name or s.id, "tooltip": s.tooltip} for i, s in enumerate(schema.outputs)}
        by_node[schema.node_id] = {"display_name": schema.display_name, "description": schema.description}
        by_node[schema.node_id] |= {"inputs": inputs, "outputs": outputs}
    return by_node


def main_english(schemas: list[Any]) -> dict[str, Any]:
    """Make main.json in English.

    The menu's categories, and the front end's texts by their keys.
    """
    categories = {part: part for s in schemas for part in s.category.split("/")}
    return {"nodeCategories": categories, "equipoise": dict(sorted(front_end().items()))}


def front_end(folder: Path = LOCALES.parent / "web") -> dict[str, str]:
    """Collect the texts in the scripts of a folder: key -> English.

    They stand in calls text('key', 'English text', ...), or in arrays that are spread into one. ValueError for a call or a key that is
    written otherwise, and for a key with two texts.
    """
    by_key: dict[str, str] = {}
    used: dict[str, str] = {}
    for script in sorted(folder.glob("*.js")):
        code = "".join(line for line in script.read_text(encoding="utf-8").splitlines(True) if not line.lstrip().startswith(("//", "*")))
        if re.search(r"(?<![\w.])(?<!function )text\((?!\s*'|\.\.\.)", code):
            raise ValueError(f"{script.name} calls text() otherwise than text('key', 'English text'); write both as plain strings.")
        used |= dict.fromkeys(re.findall(r"'(\w+\.[\w.]+)'", code), script.name)
        for key, literal in _CALL.findall(code):
            english = re.sub(r"\\(.)", r"\1", literal[1:-1])
            if by_key.setdefault(key, english) != english:
                raise ValueError(f"{script.name}: the key {key} has two texts: '{by_key[key]}' and '{english}'; rename one.")
    parts = {key.split(".")[0] for key in by_key}
    for key, name in used.items():
        if key not in by_key and key.split(".")[0] in parts:
            raise ValueError(f"{name}: no English text is beside '{key}'; write text('{key}', 'English text').")
    return by_key


def sockets(nodes: Mapping[str, Any]) -> list[dict[str, str]]:
    """Yield the name and tooltip of every input and output."""
    return [s for n in nodes.values() for s in [*n["inputs"].values(), *n["outputs"].values()]]


def node_texts(nodes: Mapping[str, Any]) -> list[str]:
    """List display names, descriptions and tooltips, each once, in order."""
    names = [n["display_name"] for n in nodes.values()]
    return list(dict.fromkeys([*names, *(n["description"] for n in nodes.values()), *(s["tooltip"] for s in sockets(nodes))]))


def wanted(nodes: Mapping[str, Any], main: Mapping[str, Any]) -> list[str]:
    """List all texts that need a translation, each once.

    In the order of the tables.
    """
    return list(dict.fromkeys([*main["nodeCategories"], *node_texts(nodes), *main["equipoise"].values()]))


def names(nodes: Mapping[str, Any]) -> list[str]:
    """List the names of sockets, which may be translated."""
    return list(dict.fromkeys(s["name"] for s in sockets(nodes)))


def missing(table: Table, nodes: Mapping[str, Any], main: Mapping[str, Any]) -> list[str]:
    """List the texts without a translation."""
    return [t for t in wanted(nodes, main) if not table.get(t, "").strip()]


def stale(table: Table, nodes: Mapping[str, Any], main: Mapping[str, Any]) -> list[str]:
    """List the translations of texts that no longer exist."""
    known = {*wanted(nodes, main), *names(nodes)}
    return [t for t in table if t not in known]


def short(name: str) -> str:
    """Return a node's name without an English one in brackets after it."""
    return _BRACKETS.sub("", name)


def lost(text: str, translation: str, table: Table, nodes: Mapping[str, Any]) -> list[str]:
    """List parts of a text that its translation lacks.

    These are numbers, quoted words, paths and code, placeholders, and names of nodes.
    """
    missing_parts = [f"the number {n}" for n in _numbers(text) if n not in _numbers(translation)]
    marked = re.findall(r"(?<!\w)'([^' ]+)'(?!\w)", text) + re.findall(r"\b[a-z][\w.]*(?:[/_][\w.]+)+", text) + re.findall(r"\{\w+\}", text)
    for word in marked:
        word = word.rstrip(".")
        if word not in translation and table.get(word, word) not in translation:
            missing_parts.append(word)
    titles = [n["display_name"] for n in nodes.values()]
    rest = "" if text in titles else text
    for name in sorted(titles, key=len, reverse=True):
        if name in rest:
            rest = rest.replace(name, "")
            if name not in translation and short(table.get(name, name)) not in translation:
                missing_parts.append(f"{name} ({short(table.get(name, name))})")
    return missing_parts


def all_faults(language: str, table: Table, nodes: Mapping[str, Any]) -> dict[str, list[str]]:
    """Find the faults of a language's translations: text -> fault.

    Texts without a fault are left out.
    """
    shown, by_text = set(node_texts(nodes)), {}
    for text, translation in table.items():
        faults = lost(text, translation, table, nodes)
        if "perceived" in text and not re.search(PERCEIVED[language], translation, re.I):
            faults.append("that it is perceived")
        if text in shown and (signs := OF_MESSAGES & set(translation)):
            faults.append(f"to be said in words: {' '.join(sorted(signs))}")
        if faults:
            by_text[text] = faults
    return by_text


def _numbers(text: str) -> set[str]:
    """Reduce numbers to their digits.

    So 2,048 equals 2.048, and 0.5 equals 0,5.
    """
    return set(re.findall(r"\d+", re.sub(r"(?<=\d)[.,\u00a0\u202f](?=\d)", "", text)))


def translated(table: Table, nodes: Mapping[str, Any], main: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Make nodeDefs.json and main.json in a language.

    English (an empty table) is a language like any other.

    Tooltips with characters of the message format are left out: the front end then shows that of the schema. Which of its versions would
    read those characters as more than text differs.
    """

    def socket(english: Mapping[str, str]) -> dict[str, str]:
        name, tooltip = (table.get(english[k], english[k]) for k in ("name", "tooltip"))
        return {"name": name} if OF_MESSAGES & set(tooltip) else {"name": name, "tooltip": tooltip}

    by_text = {}
    for node_id, node in nodes.items():
        texts = {k: table.get(node[k], node[k]) for k in ("display_name", "description")}
        by_text[node_id] = texts | {side: {i: socket(s) for i, s in node[side].items()} for side in ("inputs", "outputs")}
    return by_text, {part: {k: table.get(v, v) for k, v in texts.items()} for part, texts in main.items()}


def table_of(language: str) -> dict[str, str]:
    """Read the table of a language; a language without a file has an empty table.

    Raises ValueError if a text occurs twice.
    """
    file = TABLES / f"{language}.json"
    return json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=_once) if file.is_file() else {}


def _once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    by_text = dict(pairs)
    if len(by_text) < len(pairs):
        twice = [k for i, (k, _) in enumerate(pairs) if k in dict(pairs[:i])]
        raise ValueError(f"these texts are translated twice; keep one of each: {twice}")
    return by_text


def files(nodes: Mapping[str, Any], main: Mapping[str, Any]) -> dict[Path, str]:
    """Make the content of all files of locales/."""
    made: dict[Path, Any] = {}
    for language in ("en", *LANGUAGES):
        table = table_of(language)
        if language != "en" and not table:
            continue
        made[LOCALES / language / "nodeDefs.json"], made[LOCALES / language / "main.json"] = translated(table, nodes, main)
        if table:
            known = [t for t in [*wanted(nodes, main), *names(nodes)] if t in table]
            made[TABLES / f"{language}.json"] = {t: table[t] for t in dict.fromkeys([*known, *table])}
    return {path: json.dumps(content, ensure_ascii=False, indent=2) + "\n" for path, content in made.items()}


def _schemas() -> list[Any]:
    """Return the schemas of all nodes, with the host at COMFYUI_PATH."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("equipoise_dev", LOCALES.parent / "dev.py")
    assert spec is not None and spec.loader is not None
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    dev.register()
    host = dev.host_folder()
    if host is None:
        raise SystemExit("Set COMFYUI_PATH to a checkout of ComfyUI v0.3.64 or later.")
    sys.path.insert(0, str(host))
    with tempfile.TemporaryDirectory() as base:
        sys.argv = ["main.py", "--cpu", "--base-directory", base]
        import comfy.options

        comfy.options.enable_args_parsing()
        from equipoise.host.core.files import register_model_folders
        from equipoise.nodes import all_nodes

        register_model_folders()
        return [node.define_schema() for node in all_nodes()]


def run(arguments: list[str]) -> int:
    """Run the command line; return its exit code."""
    schemas = _schemas()
    nodes, main = english(schemas), main_english(schemas)
    if not arguments:
        for path, content in files(nodes, main).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        return 0
    if len(arguments) == 2:
        table = table_of(arguments[1])
        print(json.dumps({t: "" for t in missing(table, nodes, main)}, ensure_ascii=False, indent=2))
        return 0
    todo = 0
    for language in LANGUAGES:
        table = table_of(language)
        lacking, old = missing(table, nodes, main), stale(table, nodes, main)
        faults = [f"{t}\n    {table[t]}\n    {'; '.join(f)}" for t, f in all_faults(language, table, nodes).items()]
        print(f"{language}: {len(lacking)} to translate (+), {len(old)} stale (-), {len(faults)} that lost something (!)")
        for mark, texts in (("+", lacking), ("-", old), ("!", faults)):
            todo += len(texts)
            print("".join(f"  {mark} {text}\n" for text in texts), end="")
    return 1 if todo else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
