"""The in-process tests on the oldest supported host, in a pytest of their own: two versions do not fit in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
from equipoise.benchmarks.core.graph_server import REPOSITORY

FILES = (
    "test_adm_host.py",
    "test_text_model.py",
    "test_recording.py",
    "test_label_sources.py",
    "test_clip_labels.py",
    "test_neuron_path_nodes.py",
    "test_composition.py",
    "test_devices.py",
)
SELECTED = "not published and not memory and not in_a_graph and not torch.compile"
"""What reads the repository, measures a process, or starts servers is run once, on the newer host."""


@dataclass(frozen=True)
class FloorResults:
    """What the tests on the oldest host came to."""

    passed: dict[str, int]
    """Number of tests that passed, by file."""
    failures: dict[str, list[str]]
    """Name and traceback of each test that failed, by file."""
    returncode: int
    """Exit status of that pytest; 0 if no test failed."""
    output: str
    """End of what it printed."""


def read_results(report: Path, returncode: int, output: str) -> FloorResults:
    """Read a report in JUnit's format; without one, all files lack tests that passed."""
    passed: dict[str, int] = dict.fromkeys(FILES, 0)
    failures: dict[str, list[str]] = {name: [] for name in FILES}
    for case in ElementTree.parse(report).iter("testcase") if report.is_file() else ():
        # A file that cannot be imported is named by "name" alone.
        file = (case.get("classname") or case.get("name", "")).rpartition(".")[2] + ".py"
        wrong = [part for part in case if part.tag in ("failure", "error")]
        if wrong:
            failures.setdefault(file, []).extend(f"{case.get('name')}:\n{part.text}" for part in wrong)
        elif case.find("skipped") is None:
            passed[file] = passed.get(file, 0) + 1
    return FloorResults(passed, failures, returncode, output)


@pytest.fixture(scope="module")
def results(floor_path: Path, tmp_path_factory: pytest.TempPathFactory) -> FloorResults:
    """Run the tests on the oldest host. There is no limit of time, as for the same tests in this process."""
    folder = tmp_path_factory.mktemp("floor")
    report = folder / "report.xml"
    files = [str(path) for path in sorted((REPOSITORY / "tests" / "host").rglob("test_*.py")) if path.name in FILES]
    arguments = [*files, "--rootdir", str(REPOSITORY), "--import-mode=importlib"]
    arguments += ["-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "inner"), "-k", SELECTED, f"--junitxml={report}"]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, pytest; sys.exit(pytest.main({arguments!r}))"],
        cwd=folder,
        env=os.environ | {"COMFYUI_PATH": str(floor_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return read_results(report, done.returncode, done.stdout[-6000:])


@pytest.mark.parametrize("name", FILES)
def test_a_file_passes_on_the_floor(name: str, results: FloorResults) -> None:
    assert not results.failures[name], "\n\n".join(results.failures[name])
    assert results.passed[name], results.output


def test_they_all_ran_to_the_end(results: FloorResults) -> None:
    assert results.returncode == 0, results.output
    assert sum(results.passed.values()) > 80
