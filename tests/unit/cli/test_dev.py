"""dev.py: arguments, folders, links and refusals. No virtual environment is made here and nothing is downloaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from equipoise.tests.equipoise_patience import PATIENCE


@pytest.fixture(autouse=True)
def no_environment(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Making or filling an environment ends a test."""

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("this test must not prepare an environment")

    monkeypatch.setattr(dev, "make_venv", never)
    monkeypatch.setattr(dev, "run_step", never)


def call(repository: Path, *words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """dev.py as a person runs it, from another folder, with an environment folder that must stay unmade."""
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, str(repository / "dev.py"), *(str(w) for w in words)], capture_output=True, text=True, env=env, timeout=PATIENCE
    )


def test_python_may_stand_anywhere(dev: ModuleType) -> None:
    assert dev.split_arguments(["--python", "p", "demo", "--json", "f"]) == ("p", "demo", ["--json", "f"])
    assert dev.split_arguments(["bench", "adp", "--quick", "--python=p"]) == ("p", "bench", ["adp", "--quick"])
    assert dev.split_arguments(["test", "-k", "x"]) == (None, "test", ["-k", "x"])
    assert dev.split_arguments([]) == (None, None, [])
    with pytest.raises(dev.Refused, match="--python needs the path"):
        dev.split_arguments(["demo", "--python"])


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "home/.cache/equipoise/venv"),
        ("linux", {"XDG_CACHE_HOME": "BASE/x"}, "x/equipoise/venv"),
        ("darwin", {}, "home/Library/Caches/equipoise/venv"),
        ("win32", {"LOCALAPPDATA": "BASE/local"}, "local/equipoise/venv"),
        ("win32", {}, "home/AppData/Local/equipoise/venv"),
        ("linux", {"EQUIPOISE_VENV": "BASE/mine"}, "mine"),
    ],
)
def test_where_the_environment_lies(
    dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, variables: dict[str, str], expected: str
) -> None:
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "EQUIPOISE_VENV"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value.replace("BASE", str(tmp_path)))
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    monkeypatch.setattr(sys, "platform", platform)
    assert dev.venv_folder() == tmp_path / expected
    python = dev.venv_python(dev.venv_folder())
    assert python.relative_to(tmp_path / expected) == Path("Scripts/python.exe" if platform == "win32" else "bin/python")


def test_a_stamp_makes_the_second_call_quick(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EQUIPOISE_VENV", str(tmp_path / "venv"))
    python = dev.venv_python(tmp_path / "venv")
    python.parent.mkdir(parents=True)
    python.touch()
    asked: list[Any] = []

    def probe(*args: Any, **kwargs: Any) -> tuple[dict[str, str], list[str]]:
        asked.append(args)
        return {}, []

    monkeypatch.setattr(dev, "probe", probe)
    assert dev.ensure_environment(None) == python  # no stamp: recognised by importing what is needed
    assert dev.ensure_environment(None) == python
    assert len(asked) == 1
    host = tmp_path / "host"
    host.mkdir()
    (host / "requirements.txt").write_text("torch\nPillow\naiohttp>=3.11.8\n# x\npydantic~=2.0\n", encoding="utf-8")
    assert dev.host_requirements(host) == {"aiohttp": "aiohttp>=3.11.8", "pydantic": "pydantic~=2.0"}
    dev.ensure_environment(host)
    assert len(asked) == 2 and asked[1][2] == ["aiohttp", "pydantic"]
    dev.ensure_environment(host)
    dev.ensure_environment(None)
    assert len(asked) == 2


def test_only_what_is_missing_is_installed(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EQUIPOISE_VENV", str(tmp_path / "venv"))
    python = dev.venv_python(tmp_path / "venv")
    python.parent.mkdir(parents=True)
    python.touch()
    answers = [({"torchaudio": "ModuleNotFoundError"}, ["aiohttp"]), ({}, [])]
    monkeypatch.setattr(dev, "probe", lambda *a, **k: answers.pop(0))
    monkeypatch.setattr(dev, "host_requirements", lambda host: {"aiohttp": "aiohttp>=3", "yarl": "yarl"})
    steps: list[Any] = []
    monkeypatch.setattr(dev, "run_step", lambda command, failure: steps.append(command))
    said: list[str] = []
    monkeypatch.setattr(dev, "say", said.append)
    dev.ensure_environment(tmp_path)
    packages = ["torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0", "aiohttp>=3"]
    assert steps == [[str(python), "-m", "pip", "install", "--disable-pip-version-check", *packages]]
    assert "GB" in said[0] and "--python PATH" in said[0]


def test_an_environment_that_stays_incomplete_is_said(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EQUIPOISE_VENV", str(tmp_path / "venv"))
    python = dev.venv_python(tmp_path / "venv")
    python.parent.mkdir(parents=True)
    python.touch()
    monkeypatch.setattr(dev, "probe", lambda *a, **k: ({"scipy": "ImportError: broken"}, []))
    monkeypatch.setattr(dev, "run_step", lambda *a: None)
    with pytest.raises(dev.Refused, match=r"still not complete: scipy \(ImportError: broken\)"):
        dev.ensure_environment(None)
    assert not (tmp_path / "venv" / "equipoise.json").exists()


def test_a_folder_that_holds_something_else_is_left_alone(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine", encoding="utf-8")
    result = call(repository, "convert", "--help", EQUIPOISE_VENV=str(tmp_path))
    assert result.returncode == 2 and "is not empty and no virtual environment" in result.stderr
    assert (tmp_path / "letters.txt").read_text(encoding="utf-8") == "mine"


def test_download_sizes(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(dev.platform, "machine", lambda: "x86_64")
    assert "2 to 3 GB" in dev.download_note(["torch==2.11.0"])
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "0.5 GB" in dev.download_note(["torch==2.11.0"])
    assert "200 MB" in dev.download_note(["pytest", "ruff"])


def test_help_lists_every_command(repository: Path) -> None:
    result = call(repository, "--help")
    assert result.returncode == 0
    for word in ("test", "comfyui", "convert", "bench", "--python", "EQUIPOISE_VENV", "COMFYUI_PATH"):
        assert f"  {word} " in result.stdout
    assert call(repository).returncode == 2


def test_unknown_command_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    result = call(repository, "dmeo", EQUIPOISE_VENV=str(tmp_path / "never"))
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("dev.py: there is no command 'dmeo': choose one of ") and result.stderr.count("\n") == 1
    assert not (tmp_path / "never").exists()


def test_missing_interpreter_is_one_sentence(repository: Path) -> None:
    result = call(repository, "bench", "x", "--python", "no-such-python")
    assert result.returncode == 2
    assert result.stderr == "dev.py: there is no Python interpreter at 'no-such-python': check the path given with --python.\n"


def test_missing_modules_are_named(dev: ModuleType) -> None:
    with pytest.raises(dev.Refused, match=r"lacks no_such_module_a, torch_x"):
        dev.REQUIREMENTS.update(no_such_module_a="a==1", torch_x="b")
        try:
            dev.chosen_interpreter(sys.executable, ["json", "no_such_module_a", "torch_x"], None)
        finally:
            del dev.REQUIREMENTS["no_such_module_a"], dev.REQUIREMENTS["torch_x"]


@pytest.mark.skipif(sys.platform == "win32", reason="a script stands for the interpreter")
def test_something_else_than_python_is_said(dev: ModuleType, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho no such thing >&2\nexit 3\n", encoding="utf-8")
    script.chmod(0o755)
    with pytest.raises(dev.Refused, match=r"does not work as a Python interpreter \(no such thing\)"):
        dev.chosen_interpreter(str(script), ["json"], None)


def test_an_old_interpreter_is_said(dev: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dev, "OLDEST_PYTHON", (99, 0))
    with pytest.raises(dev.Refused, match=r"needs Python 3.10 or later and '.*' is 3\.\d+\.\d+: choose another with --python"):
        dev.chosen_interpreter(sys.executable, ["json"], None)


def test_no_host_is_one_sentence(repository: Path, tmp_path: Path) -> None:
    for path in (str(tmp_path), ""):
        result = call(repository, "comfyui", COMFYUI_PATH=path)
        assert result.returncode == 2
        assert f"there is no ComfyUI at '{path}' (no main.py in it): set COMFYUI_PATH" in result.stderr


def test_commands_of_the_package_pass_through(repository: Path) -> None:
    result = call(repository, "--python", sys.executable, "convert", "a.safetensors", "b.safetensors")
    assert result.returncode == 1
    assert result.stderr == "equipoise convert: 'a.safetensors' is already a safetensors file.\n"
    assert call(repository, "convert", "--python", sys.executable).returncode == 2  # the child's own exit code (argparse)


def test_the_package_is_there_and_the_repository_is_not_on_the_path(dev: ModuleType, repository: Path, tmp_path: Path) -> None:
    code = "import sys, os, importlib.util as u, json; sys.path.insert(0, ROOT); sys.path.insert(0, '')\n"
    code += "s = u.spec_from_file_location('d', os.path.join(ROOT, 'dev.py')); d = u.module_from_spec(s); s.loader.exec_module(d)\n"
    code += "d.leave_path(); d.register(); d.register(); import equipoise.cli.main as c\n"
    code += "print(json.dumps([[os.path.realpath(p) for p in sys.path], c.__file__, u.find_spec('shipped') is None]))"
    result = subprocess.run([sys.executable, "-c", f"ROOT = {str(repository)!r}\n{code}"], capture_output=True, text=True, cwd=repository)
    assert result.returncode == 0, result.stderr
    path, file, hidden = json.loads(result.stdout)
    assert str(repository) not in path and hidden
    assert Path(file) == repository / "cli" / "main.py"


def test_worker_processes_have_the_package(fresh_python: Callable[..., str], repository: Path) -> None:
    """A spawned worker starts from the main module's file: for commands run through dev.py that is dev.py."""
    code = f"sys.modules['__main__'].__file__ = {str(repository / 'dev.py')!r}\nsys.path.insert(0, {str(repository)!r})\n"
    code += "import equipoise.cli.publish as r\nfrom multiprocessing import get_context\n"
    code += "with get_context('spawn').Pool(1) as pool:\n    print(pool.apply(r.as_json, ((1, float('inf')),)))\n"
    assert fresh_python(code) == "[1, None]\n"


def test_link(dev: ModuleType, tmp_path: Path, repository: Path) -> None:
    link = tmp_path / "custom_nodes" / "equipoise"
    dev.link_pack(link)
    assert (link / "dev.py").is_file() and link.resolve() == repository
    dev.link_pack(link)
    assert link.resolve() == repository
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(dev.Refused, match="move it away"):
        dev.link_pack(tmp_path / "taken")
    assert (tmp_path / "taken" / "file").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need a privilege there")
def test_a_link_to_a_clone_that_is_gone_is_replaced(dev: ModuleType, tmp_path: Path, repository: Path) -> None:
    link = tmp_path / "equipoise"
    link.symlink_to(tmp_path / "gone")
    dev.link_pack(link)
    assert link.resolve() == repository


def test_comfyui_command_line(dev: ModuleType, tmp_path: Path) -> None:
    command = dev.comfyui_command(Path("py"), tmp_path, tmp_path / "base", 8190, False, ["--preview-method", "none"])
    assert command[:2] == ["py", str(tmp_path / "main.py")]
    assert command[command.index("--base-directory") + 1] == str(tmp_path / "base")
    assert command[command.index("--listen") + 1] == "127.0.0.1" and command[command.index("--port") + 1] == "8190"
    assert command[-3:] == ["--cpu", "--preview-method", "none"]
    assert "--cpu" not in dev.comfyui_command(Path("py"), tmp_path, tmp_path, 1, True, [])
    assert dev.comfyui_command(Path("py"), tmp_path, tmp_path, 1, False, ["--cpu"]).count("--cpu") == 1


def test_every_clone_has_its_own_base_directory(dev: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mine = dev.base_directory()
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    assert dev.base_directory() != mine and dev.base_directory().parent == mine.parent


def test_a_taken_port_is_not_used(dev: ModuleType) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert dev.free_port(port) != port
    assert dev.free_port(port) == port


@pytest.mark.parametrize("code", [0, 3])
def test_exit_codes_are_the_childs(dev: ModuleType, code: int) -> None:
    assert dev.run_child([sys.executable, "-c", f"raise SystemExit({code})"]) == code


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_child_has_the_shells_exit_code(dev: ModuleType) -> None:
    assert dev.run_child([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 137


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_child_end_in_its_own_time(repository: Path, tmp_path: Path, sent: signal.Signals) -> None:
    child = "import sys, time, pathlib\ntry:\n pathlib.Path(sys.argv[1]).touch(); time.sleep(3600)\nexcept KeyboardInterrupt:\n"
    child += " time.sleep(0.3); print('saved', flush=True); sys.exit(5)"
    # A suite that runs as a shell's background job inherits an ignored SIGINT, which is not what is tested here.
    parent = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    parent += f"import importlib.util as u; s = u.spec_from_file_location('d', {str(repository / 'dev.py')!r}); d = u.module_from_spec(s)\n"
    parent += f"s.loader.exec_module(d); raise SystemExit(d.run_child([{sys.executable!r}, '-c', {child!r}, {str(tmp_path / 'up')!r}]))"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    until = time.monotonic() + PATIENCE
    while not (tmp_path / "up").exists():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(sent)
    out, _ = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == ("saved\n", 5)
