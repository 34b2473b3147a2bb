"""Slices of a batch: the rows of some images in a LATENT, in CONDITIONING, and in the hints of ControlNets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import Tensor

from ..types import Conditioning, ConditioningEntry, ControlNet, Latent

Value = TypeVar("Value")


def latent_rows(latent: Latent, rows: Sequence[int]) -> Latent:
    """Take some images of a LATENT with their masks and noise indices.

    Masks of fewer images than the batch are repeated, as the host does.
    """
    n = latent["samples"].shape[0]
    if list(rows) == list(range(n)):
        return dict(latent)
    picked = {k: v[list(rows)] if isinstance(v, Tensor) and v.shape[:1] == (n,) else v for k, v in latent.items()}
    mask = latent.get("noise_mask")
    if isinstance(mask, Tensor) and mask.ndim > 2:
        picked["noise_mask"] = _rows(mask, rows)
    if "batch_index" in latent:
        picked["batch_index"] = [latent["batch_index"][row] for row in rows]
    return picked


def conditioning_rows(conditioning: Conditioning, rows: Sequence[int], images: int) -> Conditioning:
    """Take the CONDITIONING of some images of a batch of ``images``.

    Tensors with several entries give those of the images, repeated where there are fewer than images, as the host does. Tensors with one
    entry for all stay.
    """
    if list(rows) == list(range(images)):
        return conditioning
    controls: dict[int, ControlNet] = {}
    return [[_rows(c[0], rows), _entry(c[1], rows, controls), *c[2:]] for c in conditioning]


def _entry(entry: ConditioningEntry, rows: Sequence[int], controls: dict[int, ControlNet]) -> ConditioningEntry:
    picked = {key: _rows(value, rows) for key, value in entry.items()}
    if picked.get("control") is not None:
        picked["control"] = _control_rows(picked["control"], rows, controls)
    return picked


def _rows(value: Value, rows: Sequence[int]) -> Value:
    """Take rows of a tensor that has several; return anything else as it is."""
    if not isinstance(value, Tensor) or value.ndim < 2 or len(value) < 2:
        return value
    return value[[row % len(value) for row in rows]]


def _control_rows(control: ControlNet, rows: Sequence[int], known: dict[int, ControlNet]) -> ControlNet:
    """Copy a ControlNet and those before it with the hints of these images.

    One copy for each ControlNet.
    """
    if id(control) not in known:
        hint, extra = getattr(control, "cond_hint_original", None), getattr(control, "extra_concat_orig", None) or []
        before = getattr(control, "previous_controlnet", None)
        earlier = None if before is None else _control_rows(before, rows, known)
        if earlier is before and _rows(hint, rows) is hint and all(_rows(e, rows) is e for e in extra):
            known[id(control)] = control
        else:
            copy = control.copy()
            copy.cond_hint_original, copy.extra_concat_orig = _rows(hint, rows), [_rows(e, rows) for e in extra]
            copy.set_previous_controlnet(earlier)
            known[id(control)] = copy
    return known[id(control)]
