"""The pack in a real ComfyUI: it loads, says what its inputs are, and finds its files."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from typing import Any

import pytest
from equipoise.benchmarks.core.graph_server import ODD_NAME, REPOSITORY, Server
from equipoise.tests.equipoise_patience import PATIENCE

CATEGORIES = {"equipoise", *(f"equipoise/{menu}" for menu in ("make", "measure", "data", "small models", "lab"))}
NODES = {
    "EquipoiseLoadUnconditionalDiffusion": "Load Unconditional Diffusion",
    "EquipoiseClassLabel": "Class Label",
    "EquipoiseEmptyPixelLatent": "Empty Pixel Latent",
}


def test_importing_the_pack_needs_no_host_and_imports_nothing() -> None:
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('equipoise', {str(REPOSITORY / '__init__.py')!r}, "
        f"submodule_search_locations=[{str(REPOSITORY)!r}])\n"
        "module = sys.modules['equipoise'] = importlib.util.module_from_spec(spec)\n"
        "before = set(sys.modules)\n"
        "spec.loader.exec_module(module)\n"
        "print(' '.join(sorted(set(sys.modules) - before)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, cwd=REPOSITORY.anchor)
    assert done.returncode == 0, done.stderr
    imported = {name.split(".")[0] for name in done.stdout.split()}
    assert not imported & {"torch", "numpy", "comfy", "comfy_api", "folder_paths", "nodes", "equipoise"}


def test_loads_under_an_odd_folder_name_without_a_warning(server: Server) -> None:
    lines = server.startup.splitlines()
    ours = [line for line in lines if ODD_NAME in line or "equipoise" in line.lower()]
    assert any("seconds" in line for line in ours), "the server does not list the pack's import time"
    bad = [line for line in ours if any(word in line.lower() for word in ("warning", "error", "failed", "traceback", "cannot"))]
    assert not bad
    for heading in ("IMPORT FAILED", "Traceback (most recent call last)"):
        assert heading not in server.startup


def test_every_input_and_output_has_a_tooltip(server: Server) -> None:
    info = {name: node for name, node in server.get("/object_info").items() if name.startswith("Equipoise")}
    assert {name: info[name]["display_name"] for name in NODES} == NODES
    for name, node in info.items():
        assert node["category"] in CATEGORIES, name
        assert node["description"].strip().endswith(".") and len(node["description"]) < 600, name
        inputs: dict[str, Any] = node["input"].get("required", {}) | node["input"].get("optional", {})
        silent = [key for key, value in inputs.items() if len(value) < 2 or not value[1].get("tooltip")]
        assert not silent, f"{name}: inputs without a tooltip: {silent}"
        assert len(node["output_tooltips"]) == len(node["output"]) and all(node["output_tooltips"]), name


def test_search_aliases_reach_hosts_that_know_them(server_current: Server) -> None:
    node = server_current.get("/object_info/EquipoiseEmptyPixelLatent")["EquipoiseEmptyPixelLatent"]
    if "search_aliases" not in node:
        pytest.skip("this host does not know search aliases (v0.3.64)")
    assert "pixel space" in node["search_aliases"]


def test_files_put_in_the_model_folder_appear_without_a_restart(server: Server) -> None:
    def names() -> list[str]:
        node = server.get("/object_info/EquipoiseLoadUnconditionalDiffusion")["EquipoiseLoadUnconditionalDiffusion"]
        kind, options = node["input"]["required"]["model_name"]
        return kind if isinstance(kind, list) else options["options"]

    assert "tiny_plain.safetensors" in names()
    folder = server.base / "models" / "equipoise" / "diffusion"
    added = folder / "below" / "added.safetensors"
    added.parent.mkdir()
    os.link(folder / "tiny_plain.safetensors", added)
    (folder / "notes.txt").write_text("not a model")
    assert os.path.join("below", "added.safetensors") in names()
    assert "notes.txt" not in names()


def test_a_node_file_that_fails_to_import_is_reported_with_its_traceback(
    host: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import equipoise
    from equipoise import nodes

    async def load() -> list[Any]:
        return await (await equipoise.comfy_entrypoint()).get_node_list()

    assert {node.GET_SCHEMA().node_id for node in asyncio.run(load())} >= set(NODES)
    monkeypatch.setattr(nodes, "MODULES", (*nodes.MODULES, "not_written"))
    with caplog.at_level(logging.ERROR), pytest.raises(ModuleNotFoundError, match="not_written"):
        asyncio.run(load())
    assert "could not be loaded" in caplog.text and "Traceback" in caplog.text


def test_a_schema_that_the_host_refuses_is_reported_with_the_nodes_name(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from comfy_api.latest import io
    from equipoise import nodes
    from equipoise.nodes.small_models import class_label

    class Twice(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return io.Schema(node_id="Twice", inputs=[io.Int.Input("a"), io.Int.Input("a")], outputs=[])

        @classmethod
        def execute(cls, a: int) -> io.NodeOutput:
            return io.NodeOutput()

    monkeypatch.setattr(class_label, "NODES", [Twice])
    with pytest.raises(RuntimeError, match="refuses the schema of Twice"):
        nodes.all_nodes()


def test_the_users_file_wins_over_the_shipped_one(host: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import folder_paths
    from equipoise.host.core import files as model_files

    shipped, user = tmp_path / "shipped" / "adp", tmp_path / "models" / "equipoise" / "adp"
    for folder, text in ((shipped, "theirs"), (user, "ours")):
        folder.mkdir(parents=True)
        (folder / "same.safetensors").write_text(text)
    (shipped / "only_shipped.safetensors").write_text("theirs")
    extra = tmp_path / "extra"
    extra.mkdir()
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.setattr(model_files, "_SHIPPED_WEIGHTS", tmp_path / "shipped")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "equipoise_adp", ([str(extra)], set()))
    model_files.register_model_folders()
    model_files.register_model_folders()
    paths, extensions = folder_paths.folder_names_and_paths["equipoise_adp"]
    assert paths == [str(extra), str(user), str(shipped)] and extensions == {".safetensors"}
    assert model_files.resolve("equipoise_adp", "same.safetensors").read_text() == "ours"
    assert model_files.choices("equipoise_adp") == ["only_shipped.safetensors", "same.safetensors"]
    before = model_files.fingerprint("equipoise_adp", "same.safetensors")
    assert before == model_files.fingerprint("equipoise_adp", "same.safetensors")
    (user / "same.safetensors").write_text("another one")
    assert before != model_files.fingerprint("equipoise_adp", "same.safetensors")
    with pytest.raises(FileNotFoundError, match=r"'absent.safetensors' is not in models/equipoise/adp .*only_shipped"):
        model_files.resolve("equipoise_adp", "absent.safetensors")
    with pytest.raises(FileNotFoundError):
        model_files.resolve("equipoise_adp", "../../models/equipoise/adp/none.safetensors")
