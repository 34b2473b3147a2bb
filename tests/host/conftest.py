"""A real ComfyUI for tests: in this process, or as a server of its own.

``COMFYUI_PATH`` (default ~/ComfyUI) is the host that runs in this process, ``COMFYUI_FLOOR_PATH`` (default ~/ComfyUI-0.3.64) the oldest
supported one. Only one version fits in one process: the floor is reached through its server, or a pytest of its own.
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

for folder in (Path(__file__).parent, Path(__file__).resolve().parents[2] / "tools"):
    sys.path.append(str(folder))  # for helper files whose names no host uses

from equipoise_server import Server, checkout  # noqa: E402
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
    """The host in this process. ``nodes`` is its nodes.py; ``base`` its (temporary) base directory."""

    path: Path
    base: Path
    nodes: Any

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
        """The host's own KSampler node: LATENT in, LATENT out."""
        return self.nodes.KSampler().sample(model, seed, steps, cfg, sampler, scheduler, positive, negative, latent, denoise)[0]


@pytest.fixture(scope="session")
def host(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Host:
    """ComfyUI on the CPU in this process, its folders in a temporary base directory, the tiny models among its diffusion files."""
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
    """The host, in the inference mode in which it runs prompts."""
    with torch.inference_mode():
        yield host


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small random diffusion files (see equipoise_tiny.py)."""
    return write_tiny_models(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def floor_path(pytestconfig: pytest.Config) -> Path:
    """The checkout of the oldest supported host; skips where it is missing."""
    return _checkout(pytestconfig, *VERSIONS["floor"])


def _server(config: pytest.Config, factory: pytest.TempPathFactory, tiny: Path, version: str) -> Iterator[Server]:
    path = _checkout(config, *VERSIONS[version])
    with Server(path, factory.mktemp(f"server_{version}"), tiny) as server:
        yield server


@pytest.fixture(scope="session")
def server_current(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """A running server of the host at COMFYUI_PATH, with the pack under an odd folder name."""
    yield from _server(pytestconfig, tmp_path_factory, tiny_models, "current")


@pytest.fixture(scope="session")
def server_floor(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory, tiny_models: Path) -> Iterator[Server]:
    """The same for the oldest supported host, at COMFYUI_FLOOR_PATH."""
    yield from _server(pytestconfig, tmp_path_factory, tiny_models, "floor")


@pytest.fixture(params=["current", "floor"])
def server(request: pytest.FixtureRequest) -> Server:
    """Each of the two servers in turn; started when first asked for, stopped at the end of the session."""
    return request.getfixturevalue(f"server_{request.param}")
