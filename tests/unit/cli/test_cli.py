"""The command line: lazy imports, one sentence per error, and the record that every benchmark's figures carry."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import ModuleType

import pytest
import torch
from equipoise.cli import bench
from equipoise.cli import main as cli
from equipoise.cli import publish as record


def test_help_is_quick(fresh_python: Callable[..., str]) -> None:
    """Help of the whole imports neither torch nor NumPy."""
    code = """
import sys, equipoise.cli.main as cli
try:
    cli.main(["--help"])
except SystemExit as end:
    assert end.code == 0
assert not {"torch", "numpy"} & sys.modules.keys(), "imported too much"
"""
    said = fresh_python(code)
    for command in cli.COMMANDS:
        assert re.search(rf"^    {command}(\s|$)", said, re.MULTILINE)


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_its_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"usage: equipoise {name}" in capsys.readouterr().out


def test_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["dmeo"])
    assert end.value.code == 2 and "invalid choice: 'dmeo'" in capsys.readouterr().err


def test_errors_are_one_sentence_and_traceback_shows_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "no-such"]) == 1
    assert capsys.readouterr().err.startswith("equipoise bench: there is no benchmark 'no-such': choose one of ")
    with pytest.raises(ValueError, match="no benchmark"):
        cli.main(["--traceback", "bench", "no-such"])


@pytest.fixture
def one_benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, object]:
    """A folder with one benchmark, 'tiny-thing', whose run is recorded."""
    (tmp_path / "tiny_thing.py").write_text('"""A benchmark."""\n\ndef run(quick):\n    return {}\n', encoding="utf-8")
    (tmp_path / "_private.py").write_text("\ndef run(quick):\n    return {}\n", encoding="utf-8")
    (tmp_path / "helper.py").write_text("def tool():\n    run = 1\n", encoding="utf-8")
    monkeypatch.setattr(bench, "BENCHMARKS_FOLDER", tmp_path)
    module, calls = ModuleType("tiny_thing"), {}

    def run(quick: bool) -> dict[str, object]:
        calls["quick"] = quick
        shares = torch.tensor([0.5, 0.5])
        return {"seeds": [1, 2], "fd": torch.tensor(0.25), "shares": shares, "ratio": float("nan"), "notes": {"ratio": "why"}}

    module.run = run  # type: ignore[attr-defined]
    package = bench.__package__.rpartition(".")[0]
    monkeypatch.setitem(sys.modules, f"{package}.benchmarks.tiny_thing", module)
    return calls


@pytest.mark.parametrize("typed", ["tiny-thing", "tiny_thing"])
def test_bench_publishes_what_was_measured(
    one_benchmark: dict[str, object], typed: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "deeper" / "out.json"
    assert cli.main(["bench", typed, "--quick", "--json", str(file)]) == 0
    assert one_benchmark == {"quick": True}
    line = capsys.readouterr().out.strip().splitlines()[-1]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert written == json.loads(line)
    assert (written["benchmark"], written["quick"], written["seeds"]) == ("tiny-thing", True, [1, 2])
    assert (written["fd"], written["shares"], written["ratio"], written["notes"]) == (0.25, [0.5, 0.5], None, {"ratio": "why"})
    assert written["seconds"] >= 0
    assert written["machine"]["torch"] == torch.__version__ and written["machine"]["cores"] >= 1
    assert written["commit"] is None or re.fullmatch(r"[0-9a-f]{40}", written["commit"])


def test_a_benchmark_without_a_folder_refuses_one(
    one_benchmark: dict[str, object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", "tiny-thing", "--folder", str(tmp_path)]) == 1 and not one_benchmark
    assert "takes no --folder" in capsys.readouterr().err


def test_unknown_benchmarks_name_those_there_are(one_benchmark: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="there is no benchmark 'x': choose one of tiny-thing."):
        bench.load("x")
    for name in ("_private", "helper", "..cli.main", "os"):
        with pytest.raises(ValueError, match="there is no benchmark"):
            bench.load(name)


def test_host_version_is_read_not_imported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    assert record.host_version() is None
    (tmp_path / "comfyui_version.py").write_text('# made by a script\n__version__ = "0.3.64"\n', encoding="utf-8")
    assert record.host_version() == "0.3.64"
    monkeypatch.setenv("COMFYUI_PATH", "")
    assert record.host_version() is None


def test_no_commit_outside_of_a_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(record, "ROOT", tmp_path)
    figures = record.with_record({"x": 1}, 0.0)
    assert figures["commit"] is None and figures["uncommitted_changes"] is None and figures["x"] == 1
    assert date.fromisoformat(figures["date"]).year > 2025


def test_an_installed_pack_has_the_commands_that_it_can_run(fresh_python: Callable[..., str], repository: Path, tmp_path: Path) -> None:
    """Without the folders that the registry's archive leaves out, their commands are not listed, and no other module needs them."""
    for folder in ("charts", "cli", "methods", "metrics", "models", "shipped"):
        shutil.copytree(repository / folder, tmp_path / "pack" / folder, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
    code = f"""
import importlib, pathlib
sys.modules["equipoise"].__path__ = [{str(tmp_path / "pack")!r}]
import equipoise.cli.main as cli
print(*cli.COMMANDS)
for file in sorted(pathlib.Path(cli.__file__).parent.glob("*.py")):
    importlib.import_module("equipoise.cli." + file.stem)
"""
    listed = fresh_python(code).split()
    assert set(cli.COMMANDS) - set(listed) == {"train-portraits", "bench"} and "train-adp" in listed
