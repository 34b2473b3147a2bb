"""Run Equipoise from a clone: the demo, the tests, the benchmarks, or a ComfyUI with the pack in it.

Standard library only. It makes (once, shared by all clones) a virtual environment in the user's cache folder, or uses an interpreter that
already has torch (``--python``), and runs the package there under the name ``equipoise`` without installing it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 10)

REQUIREMENTS = {
    "torch": "torch==2.11.0",
    "torchvision": "torchvision==0.26.0",
    "torchaudio": "torchaudio==2.11.0",
    "safetensors": "safetensors",
    "numpy": "numpy",
    "PIL": "pillow",
    "scipy": "scipy",
    "kornia": "kornia",
    "transformers": "transformers",
    "matplotlib": "matplotlib",
    "pytest": "pytest",
    "hypothesis": "hypothesis",
    "ruff": "ruff",
}
"""Module -> what pip is asked for. The three torch packages are one matching set."""
TORCH_SET = ("torch", "torchvision", "torchaudio")
RUN_MODULES = ("torch", "safetensors", "numpy", "PIL", "scipy", "matplotlib")
"""Modules that an interpreter given with --python needs for the demo, the benchmarks and the other commands. Tests also need pytest."""
OWN_COMMANDS = {
    "test": "run the test suite; what follows goes to pytest",
    "comfyui": "start the ComfyUI at COMFYUI_PATH with this pack linked in; what follows goes to ComfyUI",
}
PROBE = """
import importlib, importlib.metadata as metadata, importlib.util, json, sys
modules, distributions, thorough = json.loads(sys.argv[1])
missing = {}
for name in modules:
    try:
        if thorough:
            importlib.import_module(name)
        elif importlib.util.find_spec(name) is None:
            missing[name] = "not found"
    except Exception as error:
        missing[name] = f"{type(error).__name__}: {error}"
lacking = []
for name in distributions:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        lacking.append(name)
print(json.dumps([missing, lacking, sys.version_info[:3]]))
"""
ACCELERATOR = """
import torch
mps, xpu = getattr(torch.backends, "mps", None), getattr(torch, "xpu", None)
print(bool(torch.cuda.is_available() or (mps and mps.is_available()) or (xpu and xpu.is_available())))
"""


class Refused(Exception):
    """Error with a message for the user; the program then ends with exit code 2."""


def say(text: str) -> None:
    """Print a message on standard error, because a command's standard output is its own."""
    print(text, file=sys.stderr, flush=True)


# The package, without installing it.


def register(root: Path = ROOT) -> None:
    """Make the repository importable as the package ``equipoise``.

    Its root never goes on sys.path, where its folders would hide the host's modules.
    """
    if "equipoise" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location("equipoise", root / "__init__.py", submodule_search_locations=[str(root)])
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["equipoise"] = module
    spec.loader.exec_module(module)


def leave_path(root: Path = ROOT) -> None:
    """Remove the repository root and the current folder ("") from sys.path.

    Python before 3.11 puts a script's folder there.
    """
    sys.path[:] = [entry for entry in sys.path if entry and Path(entry).resolve() != root]


def cli_commands() -> dict[str, str]:
    """List the package's own commands: name -> help.

    It needs no torch, because that module imports only the standard library.
    """
    register()
    return {name: text for name, (_module, text) in importlib.import_module("equipoise.cli.main").COMMANDS.items()}


# The environment.


def cache_folder() -> Path:
    """Return Equipoise's folder in the user's cache."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "equipoise"


def venv_folder() -> Path:
    """Return the folder of the virtual environment, which may not exist yet."""
    chosen = os.environ.get("EQUIPOISE_VENV")
    return Path(chosen).expanduser().resolve() if chosen else cache_folder() / "venv"


def venv_python(folder: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return folder / "Scripts" / "python.exe" if sys.platform == "win32" else folder / "bin" / "python"


def host_folder() -> Path | None:
    """Return the ComfyUI checkout at COMFYUI_PATH (default ~/ComfyUI), or None."""
    path = os.environ.get("COMFYUI_PATH", "~/ComfyUI")
    folder = Path(path).expanduser().resolve()
    return folder if path and (folder / "main.py").is_file() else None


def host_requirements(host: Path | None) -> dict[str, str]:
    """Read a host's requirements.txt: distribution -> line; REQUIREMENTS are left out."""
    file = host / "requirements.txt" if host else None
    if file is None or not file.is_file():
        return {}
    lines = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        line = line.split("#")[0].strip()
        name = line.split(";")[0].strip()
        for mark in "<>=!~[ ":
            name = name.split(mark)[0]
        if name and not name.startswith("-") and name.lower() not in REQUIREMENTS and name.lower() != "pillow":
            lines[name] = line
    return lines


def probe(python: Path, modules: Sequence[str], distributions: Sequence[str], thorough: bool) -> tuple[dict[str, str], list[str]]:
    """Look for modules in an interpreter; ``thorough`` imports them.

    Returns (module -> error, distributions that are not installed).
    """
    command = [str(python), "-c", PROBE, json.dumps([list(modules), list(distributions), thorough])]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.anchor)
    try:
        missing, lacking, version = json.loads(result.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        last = (result.stderr.strip().splitlines() or ["it printed nothing"])[-1]
        raise Refused(f"'{python}' does not work as a Python interpreter ({last}): choose another with --python.") from None
    if tuple(version) < OLDEST_PYTHON:
        number = ".".join(str(part) for part in version)
        raise Refused(f"Equipoise needs Python 3.10 or later and '{python}' is {number}: choose another with --python.")
    return missing, lacking


def download_note(requirements: Sequence[str]) -> str:
    """Say how much an installation will download."""
    names = ", ".join(requirements)
    if not any(r.startswith("torch==") for r in requirements):
        return f"Downloading {names} (up to about 200 MB)."
    if sys.platform.startswith("linux") and platform.machine().lower() in ("x86_64", "amd64"):
        size = "about 2 to 3 GB (PyPI's torch for Linux brings NVIDIA's libraries along), and about 6 GB on disk"
    else:
        size = "about 0.5 GB, and about 2 GB on disk"
    return f"Downloading {names}: {size}. To use an interpreter that already has torch instead, stop here (Ctrl-C) and give --python PATH."


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file during an installation.

    So only one run installs into an environment at a time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as stream:
        if sys.platform == "win32":
            import msvcrt

            stream.seek(0)
            while True:
                try:  # gives up after ten seconds
                    msvcrt.locking(stream.fileno(), msvcrt.LK_LOCK, 1)
                    break
                except OSError:
                    continue
        else:
            import fcntl

            fcntl.flock(stream, fcntl.LOCK_EX)
        yield  # closing the file gives the lock back


def run_step(command: Sequence[str], failure: str) -> None:
    """Run a step of the preparation, with its output on standard error.

    Raises Refused with ``failure`` if the step fails.
    """
    result = subprocess.run(command, stdout=sys.stderr.fileno(), cwd=ROOT.anchor)
    if result.returncode:
        raise Refused(f"{failure} (exit code {result.returncode}).")


def make_venv(folder: Path) -> None:
    """Make a virtual environment.

    It replaces a broken environment, and refuses any other folder that is not empty.
    """
    if folder.exists() and any(folder.iterdir()) and not (folder / "pyvenv.cfg").is_file():
        raise Refused(f"'{folder}' is not empty and no virtual environment: choose another folder with EQUIPOISE_VENV.")
    say(f"Making a virtual environment in {folder} (Python {platform.python_version()}).")
    try:
        run_step(
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            f"no virtual environment could be made in {folder}: install Python's venv module (Debian, Ubuntu: apt install python3-venv), "
            "or give an interpreter that has torch with --python PATH",
        )
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # a half-made environment would pass for a complete one
        raise


def read_stamp(folder: Path) -> set[str]:
    """Read the requirements that an earlier check found installed."""
    try:
        return set(json.loads((folder / "equipoise.json").read_text(encoding="utf-8"))["requirements"])
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def ensure_environment(host: Path | None) -> Path:
    """Make and fill the environment if needed, and return its interpreter.

    ``host``: a ComfyUI whose requirements are also needed. A stamp in the environment lists what was checked, so that the next call costs
    nothing. Without a stamp, modules are imported as a test.
    """
    folder, extra = venv_folder(), host_requirements(host)
    python, wanted = venv_python(folder), {*REQUIREMENTS.values(), *extra.values()}
    if python.is_file() and wanted <= read_stamp(folder):
        return python
    with locked(folder.with_name(f".{folder.name}.lock")):
        checked = read_stamp(folder)  # again: another run may have just finished
        if python.is_file() and wanted <= checked:
            return python
        if not python.is_file():
            make_venv(folder)
        missing, lacking = probe(python, list(REQUIREMENTS), list(extra), thorough=True)
        if missing.keys() & set(TORCH_SET):
            missing |= dict.fromkeys(TORCH_SET, "one matching set")
        needed = [REQUIREMENTS[m] for m in REQUIREMENTS if m in missing] + [extra[d] for d in lacking]
        if needed:
            say(download_note(needed))
            run_step(
                [str(python), "-m", "pip", "install", "--disable-pip-version-check", *needed],
                f"pip could not install into {folder}: see its message above, mend the cause and run the command again",
            )
            missing, lacking = probe(python, list(REQUIREMENTS), list(extra), thorough=True)
            if missing or lacking:
                what = "; ".join([f"{m} ({e})" for m, e in missing.items()] + lacking)
                raise Refused(f"the environment in {folder} is still not complete: {what}. Delete that folder and run the command again.")
        (folder / "equipoise.json").write_text(json.dumps({"requirements": sorted(checked | wanted)}, indent=1), encoding="utf-8")
    return python


def chosen_interpreter(path: str, modules: Sequence[str], host: Path | None) -> Path:
    """Check an interpreter from --python; nothing is installed into it."""
    program = shutil.which(os.path.expanduser(path))
    if program is None:
        raise Refused(f"there is no Python interpreter at '{path}': check the path given with --python.")
    python = Path(os.path.abspath(program))  # not resolved: a virtual environment's interpreter is a link
    missing, lacking = probe(python, modules, list(host_requirements(host)), thorough=False)
    if missing:
        install = " ".join(REQUIREMENTS[m].split("==")[0] for m in missing)
        raise Refused(f"'{python}' lacks {', '.join(missing)}: run '{python} -m pip install {install}', or leave out --python.")
    if lacking:
        raise Refused(
            f"'{python}' lacks {', '.join(lacking)}, which the ComfyUI at {host} needs: install that folder's requirements.txt into it, "
            "leave out --python, or set COMFYUI_PATH to nothing to go without a host."
        )
    return python


# Running.


class Terminated(BaseException):
    """Error that SIGTERM raises."""


def in_foreground() -> bool:
    """Tell whether the terminal sends Ctrl-C to child processes too."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return sys.platform == "win32"


def run_child(command: Sequence[str], cwd: Path | None = None) -> int:
    """Run a command to its end and return its exit code.

    The first Ctrl-C lets it end in its own time, the second one kills it.
    """

    def stop(_signal: int, _frame: object) -> None:
        raise Terminated

    previous = signal.signal(signal.SIGTERM, stop)
    process = subprocess.Popen(command, cwd=cwd)
    try:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            if not in_foreground():
                process.send_signal(signal.SIGINT)
            code = process.wait()
        except Terminated:
            process.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)
            code = process.wait(timeout=10)
    except (KeyboardInterrupt, Terminated, subprocess.TimeoutExpired):
        process.kill()
        code = process.wait()
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 128 - code if code < 0 else code


def inside(python: Path, what: str, args: Sequence[str]) -> list[str]:
    """Make the command line that runs this file in another interpreter.

    ``what``: "cli" or "pytest".
    """
    return [str(python), str(ROOT / "dev.py"), "_inside", what, *args]


def run_inside(what: str, args: Sequence[str]) -> int:
    """Run pytest or a command of the package; the environment is active by now."""
    leave_path()
    if what == "pytest":
        import pytest

        return int(pytest.main(["--import-mode=importlib", f"--rootdir={ROOT}", *args]))
    register()
    return importlib.import_module("equipoise.cli.main").main(list(args))


# ComfyUI.


def link_pack(folder: Path) -> None:
    """Link ``folder`` to this repository.

    On Windows it is a directory junction, because links need a privilege there.
    """
    if folder.exists() and folder.resolve() == ROOT:
        return
    if os.path.lexists(folder):
        try:  # rmdir takes a junction or an empty folder away, and nothing else
            folder.unlink() if folder.is_symlink() else folder.rmdir()
        except OSError:
            raise Refused(f"'{folder}' stands where the pack should be linked in: move it away.") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    if sys.platform == "win32":
        import _winapi

        _winapi.CreateJunction(str(ROOT), str(folder))
    else:
        folder.symlink_to(ROOT, target_is_directory=True)


def base_directory() -> Path:
    """Return this clone's own base directory for ComfyUI; the checkout does not change.

    It has models, input, output, user and custom_nodes.
    """
    return cache_folder() / f"comfyui-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]}"


def free_port(wanted: int = 8188) -> int:
    """Return ``wanted`` if it is free on loopback, else a free port."""
    for port in (wanted, 0):
        with socket.socket() as probe_socket:
            try:
                probe_socket.bind(("127.0.0.1", port))
            except OSError:
                continue
            return probe_socket.getsockname()[1]
    raise Refused("no free port was found on 127.0.0.1.")


def comfyui_command(python: Path, host: Path, base: Path, port: int, accelerator: bool, args: Sequence[str]) -> list[str]:
    """Make the command line that starts ComfyUI; the user's own arguments come last and win."""
    database = base / "user" / "comfyui.db"
    command = [str(python), str(host / "main.py"), "--base-directory", str(base), "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--database-url", f"sqlite:///{database.as_posix()}", "--disable-auto-launch"]
    return [*command, *([] if accelerator or "--cpu" in args else ["--cpu"]), *args]


def start_comfyui(python: Path, host: Path, args: Sequence[str]) -> int:
    """Start ComfyUI with the pack linked in, and return its exit code."""
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("--port", type=int)
    chosen, rest = own.parse_known_args(list(args))
    base = base_directory()
    for name in ("models", "input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir(parents=True, exist_ok=True)
    link_pack(base / "custom_nodes" / "equipoise")
    port = chosen.port or free_port()
    result = subprocess.run([str(python), "-c", ACCELERATOR], capture_output=True, text=True, cwd=ROOT.anchor)
    accelerator = result.stdout.strip() == "True"
    where = "" if accelerator else " on the CPU (no accelerator was found)"
    say(f"ComfyUI with Equipoise: http://127.0.0.1:{port}{where}")
    say(f"Its models, input, output and user folders are in {base}. Ctrl-C stops it.")
    return run_child(comfyui_command(python, host, base, port, accelerator, rest), host)


# The command line.


def usage(commands: Mapping[str, str]) -> str:
    """Write the help text."""
    lines = [
        "usage: python dev.py [--python PATH] COMMAND [ARGUMENTS]",
        "",
        "Runs Equipoise from this clone, in a virtual environment of its own that is made at the first call.",
        "",
        "commands:",
        *(f"  {name:<15} {text}" for name, text in {**commands, **OWN_COMMANDS}.items()),
        "",
        "options:",
        "  --python PATH   use this interpreter, which has torch, and make no environment",
        "",
        "environment variables:",
        f"  EQUIPOISE_VENV  folder of the virtual environment (now {venv_folder()})",
        "  COMFYUI_PATH    a ComfyUI checkout, for the host tests and 'comfyui' (default ~/ComfyUI; empty: none)",
        "",
        "python dev.py COMMAND --help tells more about a command.",
    ]
    return "\n".join(lines)


def split_arguments(argv: Sequence[str]) -> tuple[str | None, str | None, list[str]]:
    """Split arguments into (interpreter of --python, command, its arguments).

    --python may stand before or after the command.
    """
    python, rest = None, []
    words = iter(argv)
    for word in words:
        if word == "--python":
            python = next(words, None)
            if python is None:
                raise Refused("--python needs the path of an interpreter after it.")
        elif word.startswith("--python="):
            python = word.split("=", 1)[1]
        else:
            rest.append(word)
    return python, rest[0] if rest else None, rest[1:]


def run(argv: Sequence[str]) -> int:
    """Run the command that the arguments name."""
    if sys.version_info < OLDEST_PYTHON:
        raise Refused(f"Equipoise needs Python 3.10 or later and this is {platform.python_version()}: run dev.py with a newer one.")
    path, command, args = split_arguments(argv)
    commands = cli_commands()
    if command in (None, "-h", "--help", "help"):
        print(usage(commands))
        return 0 if command else 2
    if command not in commands and command not in OWN_COMMANDS:
        known = ", ".join([*commands, *OWN_COMMANDS])
        raise Refused(f"there is no command '{command}': choose one of {known}.")
    host = host_folder() if command in OWN_COMMANDS else None
    if command == "comfyui" and host is None:
        where = os.environ.get("COMFYUI_PATH", "~/ComfyUI")
        raise Refused(f"there is no ComfyUI at '{where}' (no main.py in it): set COMFYUI_PATH to a checkout of v0.3.64 or later.")
    if path:
        modules = [*RUN_MODULES, "pytest", "hypothesis"] if command == "test" else list(RUN_MODULES)
        python = chosen_interpreter(path, modules, host)
    else:
        python = ensure_environment(host)
    if command == "comfyui":
        assert host is not None
        return start_comfyui(python, host, args)
    if command == "test":
        return run_child(inside(python, "pytest", args), cwd=ROOT)
    return run_child(inside(python, "cli", [command, *args]))


def main(argv: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    if argv[:1] == ["_inside"]:
        return run_inside(argv[1], argv[2:])
    try:
        return run(argv)
    except Refused as refusal:
        say(f"dev.py: {refusal}")
        return 2
    except KeyboardInterrupt:
        say("Stopped.")
        return 130


if __name__ == "__mp_main__":  # a worker process that multiprocessing started: it needs the package as its parent had it
    leave_path()
    register()
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
