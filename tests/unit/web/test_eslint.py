"""ESLint on the JavaScript of the repository, with the rules of eslint.config.mjs.

Needs Node, and ESLint either in the repository (npm ci) or in the folder that ESLINT_PATH names; skipped where one is missing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Lint = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def lint(repository: Path) -> Lint:
    """lint(*words, code=None): run ESLint in the repository, on ``code`` if it is given."""
    folder = Path(os.environ.get("ESLINT_PATH") or repository).resolve()
    node, script = shutil.which("node"), folder / "node_modules" / "eslint" / "bin" / "eslint.js"
    if node is None:
        pytest.skip("install Node to check the JavaScript with ESLint.")
    if not script.is_file():
        pytest.skip(f"no ESLint in {folder}: run 'npm ci' in the repository, or set ESLINT_PATH to a folder that has it.")

    def run(*words: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
        command = [node, str(script), "--max-warnings", "0", *words]
        return subprocess.run(command, input=code, capture_output=True, text=True, encoding="utf-8", timeout=240, cwd=repository)

    return run


def test_the_javascript_is_clean(lint: Lint) -> None:
    result = lint(".")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        ("no-unused-vars", "import { make } from './extra_widget.js'\n"),
        ("no-undef", "export const title = name\n"),
        ("eqeqeq", "export const isOne = (n) => n == 1\n"),
        ("prefer-const", "let n = 1\nexport const two = 2 * n\n"),
    ],
)
def test_a_fault_in_a_script_of_the_front_end_is_reported(lint: Lint, rule: str, code: str) -> None:
    result = lint("--stdin", "--stdin-filename", "web/fault.js", code=code)
    assert result.returncode == 1 and rule in result.stdout, result.stdout + result.stderr
    assert "1 problem" in result.stdout
