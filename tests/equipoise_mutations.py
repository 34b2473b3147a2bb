"""Damage files in ways that hypothesis draws: cut, change bytes, and write wrong headers."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ODD_TEXTS = ("", " ", "0", "-1", "1e999", "nan", "null", "[]", "{}", "[[]]", "true", '"x"', "99999999999999999999", "2147483648",
             "1000000000", "../../x", "a\0b", "\ud7ff\uffff", "x" * 2000, "[" * 3000, '{"a": {"a": {"a": []}}}')  # fmt: skip
"""Values of a metadata entry."""
ODD_VALUES = (None, True, False, 0, -1, 2**31, 10**9, 10**30, 1.5, float("nan"), float("inf"), "", "x", "../x", "\0", [], [[]], {}, ["yes"],
              ["yes", "yes"], [None, None], {"yes": "no"}, [1, 2, 3], {"x": None})  # fmt: skip
"""Values of a place within JSON."""
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "C64", "XX")


def bad_input(examples: int) -> Callable[..., Any]:
    """Return settings for tests of generated input.

    Every run has the same examples, nothing is stored, and an example has no time limit.
    """
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Split a safetensors file into header and data."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: dict[str, Any], data: bytes) -> bytes:
    """Join a header and data to a safetensors file; they need not fit."""
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


def damaged(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """Damage a safetensors file in one or two ways."""
    kinds = st.sampled_from(sorted(_DAMAGE))
    for _ in range(draw(st.integers(1, 2))):
        try:
            content = _DAMAGE[draw(kinds)](draw, content)
        except (ValueError, TypeError, AttributeError, LookupError, RecursionError, struct.error):
            break  # the first left nothing that the second could work on
    return content


def changed_json(draw: Callable[[Any], Any], value: Any) -> Any:
    """Change, remove or rename one place of a JSON value, at any depth."""
    if isinstance(value, (dict, list)) and value and draw(st.integers(0, 3)):
        keys = sorted(value) if isinstance(value, dict) else list(range(len(value)))
        key = draw(st.sampled_from(keys))
        whole = dict(value) if isinstance(value, dict) else list(value)
        how = draw(st.sampled_from(("within", "within", "gone", "twice")))
        if how == "within":
            whole[key] = changed_json(draw, whole[key])
        elif how == "gone":
            del whole[key]
        elif isinstance(whole, dict):
            whole[str(draw(st.sampled_from(ODD_VALUES)))] = whole[key]
        else:
            whole.append(whole[key])
        return whole
    return draw(st.sampled_from(ODD_VALUES))


def changed_bytes(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """Cut a file, or change, remove or insert a few bytes."""
    how = draw(st.sampled_from(("cut", "bytes", "insert", "empty", "zeros")))
    place = draw(st.integers(0, max(0, len(content) - 1)))
    some = draw(st.binary(min_size=1, max_size=12))
    return {
        "cut": content[:place],
        "bytes": content[:place] + some + content[place + len(some) :],
        "insert": content[:place] + some + content[place:],
        "empty": b"",
        "zeros": content[:place] + b"\0" * (len(content) - place),
    }[how]


def _cut(draw: Callable[[Any], Any], content: bytes) -> bytes:
    return content[: draw(st.integers(0, max(0, len(content) - 1)))]


def _bytes(draw: Callable[[Any], Any], content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    place = draw(st.integers(0, min(len(content) - 1, length + 64)))
    some = draw(st.binary(min_size=1, max_size=8))
    return content[:place] + some + content[place + len(some) :]


def _longer(draw: Callable[[Any], Any], content: bytes) -> bytes:
    return content + draw(st.binary(min_size=1, max_size=64))


def _length(draw: Callable[[Any], Any], content: bytes) -> bytes:
    return struct.pack("<Q", draw(st.sampled_from((0, 1, 7, 10**6, 2**31, 10**11, 2**62, 2**63, 2**64 - 1)))) + content[8:]


def _metadata(draw: Callable[[Any], Any], content: bytes) -> bytes:
    header, data = split(content)
    said = header["__metadata__"]
    key = draw(st.sampled_from(sorted(said)))
    how = draw(st.sampled_from(("value", "value", "within", "within", "within", "gone", "new", "all")))
    if how == "value":
        said[key] = draw(st.sampled_from(ODD_TEXTS))
    elif how == "within":
        try:
            said[key] = json.dumps(changed_json(draw, json.loads(said[key])))
        except ValueError:
            said[key] = draw(st.sampled_from(ODD_TEXTS))
    elif how == "gone":
        del said[key]
    elif how == "new":
        said[draw(st.sampled_from(ODD_TEXTS))] = said[key]
    else:
        header["__metadata__"] = draw(st.sampled_from(ODD_VALUES))
    return join(header, data)


def _tensors(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """Remove or rename a tensor, or state another type, shape or place for it."""
    header, data = split(content)
    names = sorted(n for n in header if n != "__metadata__")
    name = draw(st.sampled_from(names))
    how = draw(st.sampled_from(("gone", "name", "type", "shape", "transposed", "offsets", "said")))
    if how == "gone":
        del header[name]
    elif how == "name":
        header[draw(st.sampled_from(ODD_TEXTS))] = header.pop(name)
    elif how == "type":
        header[name]["dtype"] = draw(st.sampled_from(DTYPES))
    elif how == "shape":
        header[name]["shape"] = draw(st.lists(st.sampled_from((0, 1, 2, 3, 10**9, 2**40, -1)), max_size=5))
    elif how == "transposed":
        header[name]["shape"] = header[name]["shape"][::-1]
    elif how == "offsets":
        header[name]["data_offsets"] = draw(st.lists(st.sampled_from((0, 1, 8, -8, 10**9, 2**63)), max_size=3))
    else:
        header[name] = changed_json(draw, header[name])
    return join(header, data)


def _other_shape(draw: Callable[[Any], Any], content: bytes) -> bytes:
    """Write a valid file with another shape, type or content of one tensor."""
    import torch
    from safetensors.torch import load, save

    try:
        tensors, said = load(content), split(content)[0].get("__metadata__") or {}
    except Exception as error:
        raise ValueError from error
    name = draw(st.sampled_from(sorted(tensors)))
    t = tensors[name]
    shapes, values = ("longer", "shorter", "empty", "flat", "deeper"), ("nan", "inf", "huge", "negative", "zero", "whole", "double")
    how = draw(st.sampled_from(shapes + values))
    if how in ("longer", "shorter", "empty") and t.ndim:
        dim = draw(st.integers(0, t.ndim - 1))
        size = {"longer": t.shape[dim] + 1, "shorter": max(0, t.shape[dim] - 1), "empty": 0}[how]
        t = t.index_select(dim, torch.arange(size) % max(1, t.shape[dim]))
    elif how in ("nan", "inf", "huge", "negative", "zero"):
        fill = {"nan": float("nan"), "inf": float("inf"), "huge": 6e4, "negative": -5.0, "zero": 0.0}[how]
        one = draw(st.booleans())
        t = t.clone()
        if t.numel() and (t.is_floating_point() or how in ("huge", "negative", "zero")):
            t.flatten()[: 1 if one else None] = fill
    else:
        t = {"flat": t.flatten(), "deeper": t[None], "whole": t.nan_to_num().to(torch.int32), "double": t.double()}.get(how, t.flatten())
    tensors[name] = t.contiguous()
    return save(tensors, metadata={str(k): str(v) for k, v in dict(said).items()})


_DAMAGE: dict[str, Callable[..., bytes]] = {
    "cut": _cut,
    "bytes": _bytes,
    "longer": _longer,
    "length": _length,
    "tensors": _tensors,
    **{f"metadata {i}": _metadata for i in range(4)},  # more often, as they get further
    **{f"other shape {i}": _other_shape for i in range(4)},
}
