"""Read, check and write safetensors files with metadata; a file is written completely or not at all."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

LONGEST_HEADER = 100_000_000
"""Bytes; the limit of safetensors itself. Metadata are read of every file in a folder, and must not fill the memory."""
DAMAGE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError)
"""Exceptions that a damaged file may cause; RecursionError, from JSON that is nested too deeply, is a RuntimeError."""

Content = TypeVar("Content")


@dataclass(frozen=True)
class FileFormat:
    """One kind of our safetensors files.

    How its metadata start, and how its reader refuses other files.
    """

    name: str
    """Value of "format" in the metadata."""
    other: str
    """How a message says that a file is of another kind, such as "is not an ADP"."""
    choose: str
    """What to do about a file of another kind."""
    mend: str
    """What to do about a damaged file, such as "download it again"."""
    required: tuple[str, ...] = ()
    """Metadata without which a file is refused."""
    version: str = "1"
    """Value of "format_version" in the metadata."""

    def header(self) -> dict[str, str]:
        """Return the metadata that every file of this kind starts with."""
        return {"format": self.name, "format_version": self.version}

    def load(self, path: str | os.PathLike[str], build: Callable[[dict[str, Tensor], dict[str, str]], Content]) -> Content:
        """Read a file and build its content from its tensors and metadata.

        Raises ValueError where the file is of another kind or version, lacks metadata, or is damaged.
        """
        name = os.path.basename(os.fspath(path))
        tensors, metadata = read_safetensors(path)
        if metadata.get("format") != self.name:
            raise ValueError(
                f"'{name}' {self.other}: its metadata says format={quoted(metadata, 'format')}, and {self.name!r} is expected: "
                f"{self.choose}."
            )
        if metadata.get("format_version") != self.version:
            raise ValueError(
                f"'{name}' has the format version {quoted(metadata, 'format_version')}, and this Equipoise reads '{self.version}': "
                "update Equipoise."
            )
        missing = [key for key in self.required if key not in metadata]
        if missing:
            raise ValueError(f"'{name}' lacks the metadata {', '.join(missing)}, which are needed to use it: {self.mend}.")
        try:
            return build(tensors, metadata)
        except DAMAGE as error:
            raise misfit_error(name, error, f"so {self.mend}") from error


def write_safetensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file under a temporary name, then rename it.

    So a reader never finds half a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        # Cloned, because safetensors refuses tensors that share memory (knots, which several attributes have in common).
        save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(partial), metadata=dict(metadata or {}))
        os.replace(partial, path)
    except SafetensorError as error:  # which is no OSError, also where the disk is full
        raise OSError(f"'{path.name}' cannot be written ({error}): free some space, or change the rights of its folder.") from error
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a UTF-8 text file under a temporary name, then rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file under a temporary name, flush it to the disk, then rename it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata of a safetensors file, without its tensors.

    Raises ValueError if the file is not complete.
    """
    path = Path(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(8)
            (length,) = struct.unpack("<Q", head)
            if length > path.stat().st_size:
                raise ValueError("the header is longer than the file")
            if length > LONGEST_HEADER:
                raise ValueError(f"the header has {length} bytes, which is too many")
            header = json.loads(stream.read(length))
            if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
                raise ValueError("the header is not a JSON object")
    except (struct.error, ValueError, RecursionError) as error:
        raise ValueError(f"'{path.name}' is not a whole safetensors file ({error}): copy or download it again.") from error
    return {str(k): str(v) for k, v in header.get("__metadata__", {}).items()}


def read_safetensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors (on the CPU) and metadata of a safetensors file.

    Raises ValueError if the file is not complete.
    """
    path = Path(path)
    try:
        with safe_open(str(path), framework="pt", device="cpu") as handle:
            # Cloned, so that the tensors do not hold the file mapped: it may be replaced while they are in use.
            tensors = {key: handle.get_tensor(key).clone() for key in handle.keys()}  # noqa: SIM118 (not a dict)
            metadata = dict(handle.metadata() or {})
    except FileNotFoundError:
        raise
    except Exception as error:  # safetensors raises its own type, which is no ValueError
        raise ValueError(f"'{path.name}' is not a whole safetensors file ({error}): copy or download it again.") from error
    return tensors, metadata


def parameters_of(module: torch.nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """Return the state dict of a module, with floating tensors cast to ``dtype``."""
    return {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in module.state_dict().items()}


def misfit_error(name: str, error: Exception, advice: str) -> ValueError:
    """Make the error for a file that contradicts itself.

    Its text is one sentence on one line. ``error``: one of DAMAGE; ``advice``: what to do.
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    what = lines[min(1, len(lines) - 1)].strip()  # torch lists mismatches below a heading; the first one tells enough
    what = f"{what} is missing" if isinstance(error, KeyError) else what
    what = "".join(c if c.isprintable() else "?" for c in what).rstrip(". ")
    what = what if len(what) <= 300 else f"{what[:300]}..."
    return ValueError(f"'{name}' does not fit its own metadata ({what}): the file is damaged or was edited, {advice}.")


def named_classes(stated: object) -> dict[str, tuple[str, ...]]:
    """Read attribute -> classes from a file's metadata.

    Raises ValueError unless these are names with lists of different names.
    """
    if not isinstance(stated, dict) or not all(isinstance(c, (list, tuple)) for c in stated.values()):
        raise ValueError("its attributes are not a mapping of names to lists of classes")
    for attribute, classes in stated.items():
        if not classes or not all(isinstance(c, str) and c for c in classes) or len(set(classes)) < len(classes):
            raise ValueError(f"the classes of '{attribute[:60]}' are not a list of different names")
    return {a: tuple(c) for a, c in stated.items()}


def check_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a tensor holds values that are not finite."""
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"'{name}' holds values that are not finite")


def check_shapes(make: Callable[[], torch.nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError where a module of these sizes is none that the tensors fill.

    ``make`` is called without memory being taken, as sizes that a damaged file states may be of any size.
    """
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in make().state_dict().items()}
    for name in dict.fromkeys([*wanted, *tensors]):
        if name not in tensors or name not in wanted:
            raise ValueError(f"'{name[:80]}' is {'missing' if name in wanted else 'not a weight of this kind of network'}")
        if tuple(tensors[name].shape) != wanted[name]:
            raise ValueError(f"'{name[:80]}' has the shape {list(tensors[name].shape)}, and its metadata says {list(wanted[name])}")


def stays_below(name: object) -> bool:
    """Return whether a relative path stays in its folder on every system.

    The path was found in a file, and may use either slash.
    """
    if not isinstance(name, str) or PureWindowsPath(name).drive:
        return False
    try:
        parts = [p.encode("utf-8") for p in name.replace("\\", "/").split("/")]
    except UnicodeEncodeError:
        return False
    return all(0 < len(p) <= 255 and p not in (b".", b"..") and b"\0" not in p for p in parts)


def quoted(metadata: Mapping[str, str], key: str) -> str:
    """Quote what a file's metadata state, short enough for a message.

    None if they do not state it.
    """
    text = repr(metadata.get(key))
    return text if len(text) <= 60 else f"{text[:57]}..."
