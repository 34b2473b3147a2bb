"""A disk that is full, and a folder that may not be written, while files are: the old file stays whole, and nothing else is left."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from equipoise.benchmarks.core.random_adp import random_adp
from equipoise.benchmarks.core.random_sae import random_bias, random_sae
from equipoise.methods.data.feature_set import FeatureSetWriter, iterate_shards, open_feature_set
from equipoise.methods.datasets.image_folder import open_image_folder
from equipoise.methods.datasets.image_folder_writer import ImageFolderWriter, Item
from equipoise.models.adp import load_adp, save_adp
from equipoise.models.bias_features import load_bias_features, save_bias_features
from equipoise.models.files import write_text
from equipoise.models.sae import load_sae, save_sae

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits of file sizes are POSIX's")
ATTRIBUTES = {"hair": ("short", "long")}
REFUSED = OSError


@contextlib.contextmanager
def disk_of(room: int) -> Iterator[None]:
    """No file may grow beyond ``room`` bytes: writes fail in the operating system, as on a full disk, and take a part as one does."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def sae(seed: int) -> Any:
    return random_sae(4, "middle", "tiny", latents=64, k=2, seed=seed)


FILES: dict[str, tuple[Callable[[Path, int], Any], Callable[[Path], Any]]] = {
    "ADP": (lambda p, seed: save_adp(random_adp(ATTRIBUTES, 8, seed=seed), p), load_adp),
    "autoencoder": (lambda p, seed: save_sae(sae(seed), p), load_sae),
    "bias features": (lambda p, seed: save_bias_features(random_bias(sae(seed), ATTRIBUTES, 3), p), load_bias_features),
    "text": (lambda p, seed: write_text(p, f"{seed}" * 5000), lambda p: p.read_text(encoding="utf-8")),
}


@pytest.mark.parametrize("what", sorted(FILES))
@pytest.mark.parametrize("room", [0, 1, 100, 2000])
def test_a_full_disk_leaves_the_old_file_whole(what: str, room: int, tmp_path: Path) -> None:
    write, read = FILES[what]
    path = tmp_path / "file"
    write(path, 0)
    before = tree(tmp_path)
    with disk_of(room), pytest.raises(REFUSED):
        write(path, 1)
    assert tree(tmp_path) == before
    with disk_of(room), pytest.raises(REFUSED):
        write(tmp_path / "new", 1)
    assert tree(tmp_path) == before and read(path)
    write(path, 1)  # and when there is room again, it goes on
    assert tree(tmp_path).keys() == before.keys() and tree(tmp_path) != before


@pytest.mark.parametrize("room", [0, 100, 400, 900])
def test_a_full_disk_leaves_a_feature_set_as_it_was(room: int, tmp_path: Path) -> None:
    folder = tmp_path / "set"

    def add(batch: int) -> None:
        writer = FeatureSetWriter(folder, {"base_model": "tiny"})
        features, level = torch.full((2, 3, 4, 4, 4), float(batch)), torch.tensor([-2.0, 0.0, 2.0])
        writer.add(features, level, [f"{batch}{i}.png" for i in range(2)], [batch] * 2, ["a", "b"])

    add(0)
    before = tree(folder)
    with disk_of(room), pytest.raises(REFUSED):
        add(1)
    assert tree(folder) == before
    add(1)
    found = open_feature_set(folder)
    assert [e.image_id for e in found.entries] == [0, 1, 2, 3]
    assert sum(len(f) for f, _, _ in iterate_shards(folder, found.entries)) == 12


@pytest.mark.parametrize("room", [0, 40, 250, 600])
def test_a_full_disk_leaves_a_data_set_that_goes_on(room: int, tmp_path: Path) -> None:
    folder = tmp_path / "set"

    def add(numbers: range) -> None:
        items = [Item(f"{i}" * 32, {"hair": ATTRIBUTES["hair"][i % 2]}, lambda: b"p" * 300) for i in numbers]
        ImageFolderWriter(folder, ATTRIBUTES).add(items, {"train": 1.0})

    add(range(2))
    rows, names = len(open_image_folder(folder).rows), set(tree(folder))
    with disk_of(room), pytest.raises(OSError):
        add(range(2, 9))
    found = open_image_folder(folder)
    assert len(found.rows) >= rows and names <= set(tree(folder))
    add(range(2, 9))
    found = open_image_folder(folder)
    assert len(found.rows) == 9 == sum(f.endswith(".png") for f in tree(folder))
    assert not [f for f in tree(folder) if f.endswith((".partial", ".pending"))]
    assert len((folder / "labels.csv").read_text(encoding="utf-8").splitlines()) == 10


def test_a_real_full_file_system_leaves_the_old_files_whole(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    """A file system of 64 KiB, where the user may make one (Linux, in a name space of its own)."""
    probe = os.system(f"unshare -rm sh -c 'mount -t tmpfs -o size=64k none {tmp_path}' >/dev/null 2>&1")
    if probe:
        pytest.skip("no file system can be made here: the limits of file sizes above stand for it")
    (tmp_path / "disk").mkdir()
    code = f"""
import os, shutil
from pathlib import Path
import torch
from equipoise.models.files import read_safetensors, write_safetensors, write_text
place = Path({str(tmp_path / "disk")!r})
libc = __import__("ctypes").CDLL(None, use_errno=True)
assert libc.unshare(0x00020000) == 0 or os.getuid(), "no name space"
libc.mount(b"none", b"/", None, 0x44000, None)
assert libc.mount(b"none", bytes(place), b"tmpfs", 0, b"size=64k") == 0
write_safetensors(place / "a", {{"w": torch.ones(5000)}})
write_text(place / "t", "old")
failed = 0
for write in (lambda: write_safetensors(place / "a", {{"w": torch.zeros(30000)}}), lambda: write_text(place / "t", "x" * 100000)):
    try:
        write()
    except OSError as error:
        failed += "space" in str(error).lower() or "28" in str(error)
assert read_safetensors(place / "a")[0]["w"].eq(1).all() and (place / "t").read_text() == "old"
print(failed, sorted(os.listdir(place)))
"""
    assert fresh_python(code).strip() == "2 ['a', 't']"


def test_a_folder_that_may_not_be_written_keeps_its_file(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    """All kinds of files are written by these two functions."""
    folder = tmp_path / "closed"
    write, _ = FILES["ADP"]
    write(folder / "file", 0)
    write_text(folder / "words", "old")
    before = tree(folder)
    for file in folder.iterdir():
        file.chmod(0o444)
    folder.chmod(0o555)
    code = f"""
import os
from pathlib import Path
import torch
from equipoise.models.files import write_safetensors, write_text
place, refused = Path({str(folder)!r}), 0
write_safetensors(place.parent / "other", {{"w": torch.zeros(9)}})  # what it imports, while it may read it
if not os.getuid():  # the superuser may write anywhere
    for above in [*place.parents][:3]:
        above.chmod(0o755)
    os.setuid(65534)
for write in (lambda: write_safetensors(place / "file", {{"w": torch.zeros(9)}}), lambda: write_text(place / "words", "new")):
    try:
        write()
    except OSError as error:
        refused += "denied" in str(error).lower() or "read-only" in str(error).lower()
print(refused)
"""
    try:
        assert fresh_python(code).strip() == "2"
        assert tree(folder) == before
    finally:
        folder.chmod(0o755)
