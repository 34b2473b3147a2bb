"""Record what a checkout computes, and compare two records bit for bit.

    python tools/same_results.py record FOLDER [--repo CHECKOUT] [--only NAME,...]
    python tools/same_results.py compare BEFORE AFTER [--only NAME,...]

``record`` runs the items of ``same_results_items.py`` on one thread, with the interpreter that runs this script. It writes one JSON file
for each item, and skips an item that FOLDER has already. It uses only interfaces that stay: the command line of ``dev.py``, and a ComfyUI
server (COMFYUI_PATH, default ~/ComfyUI) with the checkout as a node pack. So you can compare checkouts whose files lie in other folders, if
both were recorded on the same machine.

``compare`` lists what differs, and ends with exit code 1 if a result does. Texts, charts and checkpoints of trainings are compared for
information only, and so are the items that have "joint" in their names.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from same_results_host import ENVIRONMENT, Host
from same_results_items import COMMANDS, GRAPHS, Commands

KINDS = ("results", "texts", "charts", "checkpoints")
"""What is recorded. Only results have to stay the same."""
VOLATILE = {
    "seconds", "tokens_per_second", "date", "time", "commit", "uncommitted_changes", "machine", "run", "prompt_hash", "file_hash", "graph",
}  # fmt: skip
"""Keys of JSON and metadata, and columns of CSV files, that differ from run to run."""
CHANGING = (
    (re.compile(r"CHECKOUT/[^\s|\"]*/"), "CHECKOUT/"),  # folders within the checkout
    (re.compile(r"\|\d{16,}\|"), "|TIME|"),  # when a file was changed
    (re.compile(r"\d{8}-\d{6}_[0-9a-f]{12}"), "TIME"),  # pictures of a ledger
    (re.compile(r"(?<=thumbs_)[0-9a-f]{32}"), "ID"),
)
"""Parts of names and values that differ from run to run, and what is recorded in their place."""
PICTURE_FOLDERS = {"images", "pictures", "train", "test", "ledgers"}
"""Folders whose PNG files are images of a model. Other PNG files are charts."""
CHECKPOINT_FOLDERS = {"training", "learning", "labels"}
LEFT_OUT = (".log", ".sqlite")
WORDS = 4
"""A string in a file is a text for people if it has this many words."""
Entry = tuple[str, str, Any]
"""Kind, key and value of one thing that is recorded."""


# Digests.


def sha(content: bytes) -> str:
    """Return half of a SHA-256, which is enough to tell two results apart."""
    return hashlib.sha256(content).hexdigest()[:32]


def leaves(value: Any, key: str) -> Iterator[Entry]:
    """Yield what a JSON value holds, without volatile keys.

    A list of numbers is one entry.
    """
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in VOLATILE:
                yield from leaves(part, f"{key}.{name}")
    elif isinstance(value, list) and any(isinstance(part, (dict, str)) for part in value):
        for i, part in enumerate(value):
            yield from leaves(part, f"{key}[{i}]")
    elif isinstance(value, str) and value[:1] in ("{", "["):
        try:
            yield from leaves(json.loads(value), key)
        except ValueError:
            yield text_or_result(value), key, value
    else:
        yield text_or_result(value), key, value


def text_or_result(value: Any) -> str:
    """Return the kind of a value in a JSON file: sentences are texts."""
    return "texts" if isinstance(value, str) and len(value.split()) >= WORDS else "results"


def tensors(path: Path, key: str) -> Iterator[Entry]:
    """Yield the tensors and the metadata of a safetensors file."""
    with safe_open(str(path), "pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            content = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
            yield "results", f"{key}:{name}", f"{tensor.dtype} {list(tensor.shape)} {sha(content)}"
        if path.suffix != ".latent":  # the host keeps the graph in its latents
            yield from leaves(file.metadata() or {}, f"{key}:metadata")


def contents(path: Path, key: str) -> Iterator[Entry]:
    """Yield what a file holds, all of the kinds ``results`` and ``texts``."""
    if path.suffix in (".safetensors", ".latent"):
        yield from tensors(path, key)
    elif path.suffix == ".png":
        with Image.open(path) as picture:
            yield "results", key, f"{picture.mode} {picture.size} {sha(np.asarray(picture).tobytes())}"
    elif path.suffix == ".json":
        yield from leaves(json.loads(path.read_text(encoding="utf-8")), key)
    elif path.suffix == ".jsonl":
        yield from leaves([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()], key)
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            yield from leaves(list(csv.DictReader(file)), key)
    else:
        yield "texts", key, sha(path.read_bytes())


def of_file(path: Path, key: str) -> Iterator[Entry]:
    """Yield what a file holds, with the kind that its name and its folder tell."""
    parts = set(Path(key).parts[:-1])
    kind = ""
    if path.name == "state.safetensors" or parts & CHECKPOINT_FOLDERS:
        kind = "checkpoints"
    elif path.suffix == ".png" and not parts & PICTURE_FOLDERS:
        kind = "charts"
    for own, name, value in contents(path, key):
        yield kind or own, name, value


def of_folder(folder: Path, leave_out: Sequence[str] = (), only: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield what the files of a folder hold.

    ``leave_out`` are folders, ``only`` are patterns of file names.
    """
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder)
        chosen = not only or any(path.match(pattern) for pattern in only)
        ours = key.parts[0] not in leave_out and "graphs" not in key.parts  # data sets keep the graphs that made them
        if path.is_file() and chosen and ours and path.suffix not in LEFT_OUT:
            yield from of_file(path, key.as_posix())


# Recording.


class Recorder:
    """Run items of a checkout and write what they gave into a folder."""

    def __init__(self, folder: Path, repo: Path) -> None:
        self.folder, self.repo = folder.resolve(), repo.resolve()
        self.weights = next(p for p in self.repo.glob("*/**/adp/portraits.safetensors")).parent.parent
        git = subprocess.run(["git", "-C", str(self.repo), "rev-parse", "HEAD"], capture_output=True, text=True)
        self.commit = git.stdout.strip()
        self._host: Host | None = None

    def record(self, name: str) -> None:
        """Run an item, unless it is recorded already."""
        file = self.folder / f"{name}.json"
        if file.is_file():
            return
        started = time.monotonic()
        entries = self._command(name, COMMANDS[name]) if name in COMMANDS else self._graphs(name)
        values: dict[str, dict[str, list[str]]] = {kind: {} for kind in KINDS}
        for kind, key, value in entries:
            text = self._fixed(value if isinstance(value, str) else json.dumps(value))
            values[kind].setdefault(self._fixed(key), []).append(text if len(text) <= 200 else f"{text[:60]}... {sha(text.encode())}")
        # Names that only a changing part told apart have no order.
        recorded = {kind: {key: " + ".join(sorted(parts)) for key, parts in parts_by_key.items()} for kind, parts_by_key in values.items()}
        if not recorded["results"]:
            raise RuntimeError(f"'{name}' gave no result.")
        seconds = round(time.monotonic() - started, 1)
        file.write_text(json.dumps({"commit": self.commit, "seconds": seconds, **recorded}, indent=1), encoding="utf-8")
        print(f"{name}: {len(recorded['results'])} results, {seconds} s", flush=True)

    def close(self) -> None:
        """Stop the server if it runs."""
        if self._host:
            self._host.stop()

    def _fixed(self, text: str) -> str:
        """Return a text without what differs from one recording to the next."""
        for path, word in ((self.folder, "FOLDER"), (self.repo, "CHECKOUT")):
            text = text.replace(str(path), word)
        for pattern, word in CHANGING:
            text = pattern.sub(word, text)
        return text

    def _command(self, name: str, item: Commands) -> Iterator[Entry]:
        """Run the lines of an item in a folder of its own.

        With copies of the folders that it needs.
        """
        work_folder = self.folder / "commands" / name
        shutil.rmtree(work_folder, ignore_errors=True)
        work_folder.mkdir(parents=True)
        for needed in item.needs:
            self.record(needed)
            shutil.copytree(self.folder / "commands" / needed, work_folder / needed)
        if item.prepare:
            item.prepare(work_folder)
        for number, line in enumerate(item.lines):
            interrupted = number == 0 and bool(item.until or item.until_logged)
            log, errors = work_folder / f"{number}.out.log", work_folder / f"{number}.err.log"
            with log.open("wb") as out, errors.open("wb") as err:
                code = self._run(line.format(weights=self.weights), work_folder, (out, err), item if interrupted else None)
            if bool(code) != interrupted:
                raise RuntimeError(f"'{line}' ended with exit code {code}; it said last:\n{errors.read_text(encoding='utf-8')[-1500:]}")
            if not interrupted:
                yield "texts", f"output {number}", log.read_text(encoding="utf-8")
        yield from of_folder(work_folder, item.needs, item.only)

    def _run(self, line: str, folder: Path, streams: tuple[IO[bytes], IO[bytes]], until: Commands | None) -> int:
        """Run a command of dev.py; returns its exit code.

        ``until``: the item that says when to interrupt it.
        """
        command = [sys.executable, str(self.repo / "dev.py"), "--python", sys.executable, *shlex.split(line)]
        # In a session of its own, dev.py hands an interrupt on to the process that it started.
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | ENVIRONMENT, stdout=streams[0], stderr=streams[1], start_new_session=True
        )
        while until and process.poll() is None:
            log = Path(streams[1].name).read_text(encoding="utf-8", errors="replace")
            if (until.until and any(folder.glob(until.until))) or (until.until_logged and until.until_logged in log):
                process.send_signal(signal.SIGINT)
                break
            time.sleep(0.02)
        return process.wait()

    def _graphs(self, name: str) -> Iterator[Entry]:
        """Queue the graphs of an item on a server whose folders are empty at first."""
        if self._host is None or not self._host.running():
            self._host = Host(self.folder / "host", self.repo)
            self._host.start()
        self._host.empty()
        for number, prompt in enumerate(GRAPHS[name](self._host)):
            for kind, key, value in self._host.run(prompt):
                if kind == "json":
                    yield from leaves(value, f"{number}.{key}")
                else:
                    yield kind, f"{number}.{key}", value
        for folder in ("output", "models"):
            for kind, key, value in of_folder(self._host.base / folder):
                yield kind, f"{folder}/{key}", value


def record(folder: Path, repo: Path, names: Sequence[str]) -> int:
    """Record items; returns the exit code.

    An item that fails is reported, and the others go on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    recorder, failed, started = Recorder(folder, repo), [], time.monotonic()
    try:
        for name in names:
            try:
                recorder.record(name)
            except Exception:
                failed.append(name)
                print(f"{name} failed:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
    finally:
        recorder.close()
    print(f"{time.monotonic() - started:.0f} s; failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


# Comparing.


def compare(before: Path, after: Path, names: Sequence[str]) -> int:
    """List what differs between two records; returns 1 if a result differs or is missing."""
    differing, known = 0, [n for n in names if (before / f"{n}.json").is_file() or (after / f"{n}.json").is_file()]
    for name in known:
        files = [folder / f"{name}.json" for folder in (before, after)]
        missing = [str(file) for file in files if not file.is_file()]
        if missing:
            print(f"{name}: {missing[0]} is missing")
            differing += 1
            continue
        one, other = (json.loads(file.read_text(encoding="utf-8")) for file in files)
        for kind in KINDS:
            keys = [k for k in {**one[kind], **other[kind]} if one[kind].get(k) != other[kind].get(k)]
            counts = kind == "results" and "joint" not in name
            differing += len(keys) if counts else 0
            if keys:
                print(f"{name}: {len(keys)} of {len({**one[kind], **other[kind]})} {kind} differ{'' if counts else ' (for information)'}")
            for key in keys if kind == "results" else []:
                print(f"    {key}\n        {one[kind].get(key, 'missing')}\n        {other[kind].get(key, 'missing')}")
    print(f"{len(known)} items compared, {differing} differences that count")
    return 1 if differing or not known else 0


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording, comparing = commands.add_parser("record"), commands.add_parser("compare")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--repo", type=Path, default=Path(__file__).resolve().parents[1], help="checkout to run (default: this one)")
    comparing.add_argument("before", type=Path)
    comparing.add_argument("after", type=Path)
    for sub in (recording, comparing):
        sub.add_argument("--only", default="", metavar="NAME,...", help="items, or beginnings of their names")
    args = parser.parse_args()
    # Processes in the background may ignore interrupts, and those that they start would too; some items interrupt theirs.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    chosen = tuple(filter(None, args.only.split(","))) or ("",)
    names = [name for name in (*COMMANDS, *GRAPHS) if name.startswith(chosen)]
    if not names:
        parser.error(f"no item is called '{args.only}'; there are: {', '.join((*COMMANDS, *GRAPHS))}.")
    return record(args.folder, args.repo, names) if args.command == "record" else compare(args.before, args.after, names)


if __name__ == "__main__":
    sys.exit(main())
