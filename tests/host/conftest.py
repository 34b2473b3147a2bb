"""Run a real ComfyUI for tests, in this process or as a server.

``COMFYUI_PATH`` (default ~/ComfyUI) is the host in this process, ``COMFYUI_FLOOR_PATH`` (default ~/ComfyUI-0.3.64) the oldest supported
version. One process can hold only one version, so tests reach the oldest one through its server, or through a pytest of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

for folder in (Path(__file__).parent / "helpers", Path(__file__).resolve().parents[2] / "tools"):
    sys.path.append(str(folder))  # for helper files whose names no host uses

from equipoise.benchmarks.core.graph_server import Server, checkout  # noqa: E402
from equipoise_tiny import write_tiny_models  # noqa: E402

VERSIONS = {"current": ("COMFYUI_PATH", "~/ComfyUI"), "floor": ("COMFYUI_FLOOR_PATH", "~/ComfyUI-0.3.64")}
_MISSING = pytest.StashKey[set]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = set()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    for line in sorted(config.stash[_MISSING]):
        terminalreporter.write_line(line, red=True, bold=True)


def _checkout(config: pytest.Config, variable: str, default: str) -> Path:
    path = checkout(variable, default)
    if not (path / "main.py").is_file():
        line = f"HOST TESTS SKIPPED: no ComfyUI at {path}; set {variable} to a checkout."
        config.stash[_MISSING].add(line)
        pytest.skip(line)
    return path


@dataclass(frozen=True)
class Host:
    """ComfyUI in this process."""

    path: Path
    """Its checkout."""
    base: Path
    """Its temporary base directory."""
    nodes: Any
    """Its nodes.py."""

    @property
    def diffusion_folder(self) -> Path:
        return self.base / "models" / "equipoise" / "diffusion"

    def ksampler(
        self,
        model: Any,
        positive: Any,
        negative: Any,
        latent: dict[str, Any],
        seed: int = 0,
        steps: int = 3,
        cfg: float = 1.0,
        sampler: str = "euler",
        scheduler: str = "normal",
        denoise: float = 1.0,
    ) -> dict[str, Any]:
        """Run the host's own KSampler node: LATENT in, LATENT out."""
        return self.nodes.KSampler().sample(model, seed, steps, cfg, sampler, scheduler, positive, negative, latent, denoise)[0]


@pytest.fixture(scope="session")
def host(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Host:
    """Start ComfyUI on the CPU in this process, with the tiny models.

    Its base directory is temporary.
    """
    path = _checkout(pytestconfig, *VERSIONS["current"])
    base = tmp_path_factory.mktemp("host")
    folder = base / "models" / "equipoise" / "diffusion"
    folder.mkdir(parents=True)
    for file in tiny_models.iterdir():
        os.link(file, folder / file.name)
    sys.path.insert(0, str(path))
    arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base), "--preview-method", "latent2rgb"]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args  # noqa: F401  reads sys.argv
    finally:
        sys.argv = arguments
    from equipoise.host.core.files import register_model_folders

    import nodes as host_nodes

    register_model_folders()
    return Host(path, base, host_nodes)


@pytest.fixture
def prompt(host: Host) -> Iterator[Host]:
    """Enter the inference mode in which the host runs prompts, and return the host."""
    with torch.inference_mode():
        yield host


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of small random diffusion files (see equipoise_tiny.py)."""
    return write_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def floor_path(pytestconfig: pytest.Config) -> Path:
    """Return the checkout of the oldest supported host; skip the test if it is missing."""
    return _checkout(pytestconfig, *VERSIONS["floor"])


def _server(config: pytest.Config, factory: pytest.TempPathFactory, tiny: Path, version: str) -> Iterator[Server]:
    path = _checkout(config, *VERSIONS[version])
    with Server(path, factory.mktemp(f"server_{version}"), tiny) as server:
        yield server


@pytest.fixture(scope="session")
def server_current(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """Start a server of the host at COMFYUI_PATH.

    The pack's folder has an odd name there.
    """
    yield from _server(pytestconfig, tmp_path_factory, tiny_models, "current")


@pytest.fixture(scope="session")
def server_floor(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """Start a server of the oldest supported host, at COMFYUI_FLOOR_PATH."""
    yield from _server(pytestconfig, tmp_path_factory, tiny_models, "floor")


@pytest.fixture(params=["current", "floor"])
def server(request: pytest.FixtureRequest) -> Server:
    """Return each of the two servers in turn; each starts when it is needed.

    Both stop at the end of the session.
    """
    return request.getfixturevalue(f"server_{request.param}")
