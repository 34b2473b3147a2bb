"""Files are written whole or not at all, and a file that is not whole is refused in words."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
import torch
from equipoise.models.files import parameters_of, read_metadata, read_safetensors, write_safetensors, write_text


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "a.safetensors"
    sent = {"w": torch.randn(3, 4).half(), "n": torch.arange(5), "turned": torch.randn(4, 3).t()}
    write_safetensors(file, sent, {"format": "x", "note": "caf\u00e9"})
    tensors, metadata = read_safetensors(file)
    assert metadata == read_metadata(file) == {"format": "x", "note": "caf\u00e9"}
    assert sorted(tensors) == sorted(sent)
    assert all(torch.equal(tensors[k], sent[k]) and tensors[k].dtype == sent[k].dtype for k in sent)
    assert os.listdir(file.parent) == ["a.safetensors"]


def test_no_metadata_is_an_empty_mapping(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(file, {"w": torch.zeros(1)})
    assert read_metadata(file) == {} == read_safetensors(file)[1]


def test_read_tensors_outlive_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(file, {"w": torch.full((1000,), 7.0)})
    tensors, _ = read_safetensors(file)
    file.write_bytes(b"\0" * file.stat().st_size)
    assert tensors["w"].eq(7.0).all()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_safetensors(file, {"w": torch.ones(2)})
    before = file.read_bytes()
    with pytest.raises(TypeError):
        write_safetensors(file, {"w": torch.zeros(2)}, {"number": 3})  # type: ignore[dict-item]
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]
    text = tmp_path / "t.json"
    write_text(text, "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(text, "\ud800")
    assert text.read_text(encoding="utf-8") == "old"
    assert sorted(os.listdir(tmp_path)) == ["a.safetensors", "t.json"]


@pytest.mark.parametrize("header", [b"[1, 2]", b'"text"', b'{"__metadata__": [1]}'])
def test_a_header_that_is_no_object_is_refused_in_words(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "odd.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="'odd.safetensors' is not a whole safetensors file .*not a JSON object"):
        read_metadata(file)


@pytest.mark.parametrize("keep", [0, 5, 40, -4])
def test_a_truncated_file_is_refused_in_words(tmp_path: Path, keep: int) -> None:
    file = tmp_path / "cut.safetensors"
    write_safetensors(file, {"w": torch.ones(64)}, {"format": "x"})
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"'cut.safetensors' is not a whole safetensors file .*copy or download it again"):
        read_safetensors(file)


def test_metadata_of_a_damaged_header_are_refused_in_words(tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    headers = [(10**9, b"{}"), (8, b"not{json"), (2, b"\xff\xfe")]
    for content in [b"", b"\1\2\3", *(struct.pack("<Q", length) + header for length, header in headers)]:
        file.write_bytes(content)
        with pytest.raises(ValueError, match="'bad.safetensors' is not a whole safetensors file"):
            read_metadata(file)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    for read in (read_safetensors, read_metadata):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "none.safetensors")


def test_parameters_are_cast_where_they_are_floating() -> None:
    module = torch.nn.BatchNorm1d(3)
    cast = parameters_of(module, torch.float16)
    assert cast["weight"].dtype == torch.float16 and cast["num_batches_tracked"].dtype == torch.int64
    assert parameters_of(module)["weight"].dtype == torch.float32


def test_metadata_of_a_header_that_is_too_deep_or_too_long_are_refused_in_words(tmp_path: Path) -> None:
    """They are read of every file in a folder for the loaders' menus: one bad file must not take the menus away, nor the memory."""
    deep, long = tmp_path / "deep.safetensors", tmp_path / "long.safetensors"
    deep.write_bytes(struct.pack("<Q", 6000) + b'{"a":' * 1200)
    with long.open("wb") as stream:
        stream.write(struct.pack("<Q", 2 * 10**9))
        stream.truncate(3 * 10**9)  # of a disk's blocks it takes none
    for file in (deep, long):
        for read in (read_metadata, read_safetensors):
            with pytest.raises(ValueError, match=f"'{file.name}' is not a whole safetensors file"):
                read(file)
