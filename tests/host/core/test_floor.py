"""The in-process tests on the oldest supported host, in a pytest of their own: two versions do not fit in one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

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


def test_the_in_process_tests_pass_on_the_floor(floor_path: Path, tmp_path: Path) -> None:
    files = [str(REPOSITORY / "tests" / "host" / name) for name in FILES]
    arguments = [*files, "--rootdir", str(REPOSITORY), "--import-mode=importlib"]
    arguments += ["-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "inner"), "-k", SELECTED]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, pytest; sys.exit(pytest.main({arguments!r}))"],
        cwd=tmp_path,
        env=os.environ | {"COMFYUI_PATH": str(floor_path)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed and int(passed.group(1)) > 80
