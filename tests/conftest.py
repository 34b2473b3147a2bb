"""Fixtures of all tests: the package under its own name, fresh interpreters, threads.

It also skips the host tests where there is no ComfyUI.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
HOST_TESTS = TESTS / "host"


def load_file(path: Path, name: str) -> ModuleType:
    """Import a file by its path, without adding a folder to sys.path."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


DEV = load_file(ROOT / "dev.py", "equipoise_dev")
DEV.leave_path()
DEV.register()
load_file(TESTS / "equipoise_mutations.py", "equipoise_mutations")  # so that tests of both folders can import it
PATIENCE = load_file(TESTS / "equipoise_patience.py", "equipoise_patience").PATIENCE


def host_missing() -> str | None:
    """Return the reason why the host tests cannot run, or None."""
    if DEV.host_folder() is not None:
        return None
    path = os.environ.get("COMFYUI_PATH", "~/ComfyUI")
    where = f"no ComfyUI at '{path}' (no main.py in it)" if path else "COMFYUI_PATH is empty"
    return f"{where}; set COMFYUI_PATH to a checkout of v0.3.64 or later to run tests/host."


def below_host(path: Path) -> bool:
    return path.is_relative_to(HOST_TESTS)


def pytest_configure(config: pytest.Config) -> None:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", cores)))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not even import host tests without ComfyUI."""
    return True if below_host(collection_path) and host_missing() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip host tests that were named on the command line, if there is no ComfyUI."""
    reason = host_missing()
    for item in items:
        if reason and below_host(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if (reason := host_missing()) and HOST_TESTS.is_dir():
        terminalreporter.write_line(f"HOST TESTS SKIPPED: {reason}", red=True, bold=True)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def dev() -> ModuleType:
    """Return the module dev.py."""
    return DEV


@pytest.fixture(scope="session")
def load_module() -> Callable[[Path, str], ModuleType]:
    """Return load_module(path, name), which imports a file by its path."""
    return load_file


@pytest.fixture
def fresh_python(tmp_path: Path) -> Callable[..., str]:
    """Return fresh_python(code, NAME=value, ...), which runs code in a new interpreter.

    The interpreter has the package; the call returns what the code printed. Use it for settings that must be made before torch is imported,
    and for measurements that need their own process.
    """

    def run(code: str, **environment: str) -> str:
        script = tmp_path / "fresh.py"
        head = [
            "import importlib.util, sys",
            f"spec = importlib.util.spec_from_file_location('equipoise_dev', {str(ROOT / 'dev.py')!r})",
            "dev = importlib.util.module_from_spec(spec)",
            "spec.loader.exec_module(dev)",
            "dev.register()",
        ]
        script.write_text("\n".join([*head, code]), encoding="utf-8")
        result = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE, cwd=tmp_path, env={**os.environ, **environment}
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    return run
