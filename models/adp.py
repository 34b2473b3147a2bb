"""Attribute Distribution Predictor: reads what an image will show off one U-Net call, and holds the calibrated moves of each attribute.

After Balancing Act (Parihar et al., CVPR 2024), section 4, with what that leaves open decided: features are pooled to a 4x4 grid,
normalised by noise level and read together with the log-SNR, so that one file serves every scheduler, step count and image size.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .files import FileFormat, check_finite, check_shapes, named_classes, write_safetensors
from .level_table import BY_READING, LevelTable
from .noise_level import at_level, check_knots, interpolation
from .sites import GRID, MIDDLE

FORMAT = FileFormat(
    "equipoise-adp",
    other="is not an ADP",
    choose="choose a file from models/equipoise/adp that Equipoise trained",
    mend="download it again, or train it again",
    required=("base_model", "attributes", "channels", "kind", "moves"),
)
KINDS = ("mlp", "linear")
NO_PREDICTOR = "none"
"""Kind of an ADP that holds moves and no predictor."""


@dataclass(frozen=True)
class Move(LevelTable):
    """Edit of guidance at one site, for the classes of one attribute.

    A table over the channels. Values are unit-free directions, scaled so that the longest vector of a knot has L2 norm 1; sizes are in
    units of the norm of h.
    """

    values_field = "vectors"

    site: str
    """Where h is moved: "middle" (the middle block's output) or "output.N" (the output of up block N)."""
    knots: Tensor
    """Ascending log-SNR [T]."""
    vectors: Tensor
    """Directions to class k, [T, K, R, C, 4, 4]."""
    sizes: Tensor
    """Signed lengths [T, K] in units of the norm of h."""
    assign: str = BY_READING
    """How images get their class: "reading" (least change by the ADP's reading) or "seeded"."""
    source: str = "learned"
    """How the directions were made."""
    relative: bool = False
    """Whether the reading's mean direction is subtracted (R = 1)."""


class AttributePredictor(nn.Module):
    """ADP over any number of attributes with any number of classes each.

    ``kind`` "mlp": one hidden layer, modulated by the log-SNR; "linear": the paper's, one affine map per noise level (interpolated between
    levels). Buffers: ``knots`` [T] ascending log-SNR, ``mean`` and ``std`` [T, C] of the pooled features, ``temperature.A`` [T] per
    attribute.
    """

    def __init__(
        self,
        attributes: Mapping[str, tuple[str, ...]],
        channels: int,
        knots: Tensor,
        kind: str = "mlp",
        hidden: int = 96,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"the kind of an ADP is {' or '.join(KINDS)}, not '{kind}'.")
        self.attributes = {k: tuple(v) for k, v in attributes.items()}
        self.channels, self.kind, self.hidden = channels, kind, hidden
        self.register_buffer("knots", knots.float())
        self.register_buffer("mean", torch.zeros(len(knots), channels))
        self.register_buffer("std", torch.ones(len(knots), channels))
        self.temperature = nn.ParameterDict({a: nn.Parameter(torch.ones(len(knots)), requires_grad=False) for a in self.attributes})
        width, outputs = channels * GRID * GRID, sum(len(c) for c in self.attributes.values())
        if kind == "linear":
            self.weight = nn.Parameter(torch.zeros(len(knots), outputs, width))
            self.bias = nn.Parameter(torch.zeros(len(knots), outputs))
        else:
            self.project = nn.Linear(width, hidden)
            self.modulate = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.Linear(64, 2 * hidden))
            self.mix = nn.Linear(hidden, hidden)
            self.read = nn.Linear(hidden, outputs)

    def copied(self, device: torch.device | None = None) -> AttributePredictor:
        """Copy the predictor in float32 and without inference tensors.

        To a device, if one is given.
        """
        twin = AttributePredictor(self.attributes, self.channels, self.knots.clone(), self.kind, self.hidden)
        twin.load_state_dict({k: v.clone() for k, v in self.state_dict().items()})
        return twin.eval().requires_grad_(False).to(device or self.knots.device)

    def on(self, device: torch.device) -> AttributePredictor:
        """Return the predictor itself if it is on a device, else a copy there."""
        return self if self.knots.device == device else self.copied(device)

    def normalise(self, pooled: Tensor, level: Tensor) -> Tensor:
        """Normalise pooled features per channel at their noise level.

        pooled [B, C, 4, 4], log-SNR [B] -> the same shape, with mean 0 and standard deviation 1.
        """
        mean, std = at_level(self.mean, self.knots, level), at_level(self.std, self.knots, level)
        return (pooled - mean[:, :, None, None]) / std[:, :, None, None].clamp(min=1e-6)

    def forward(self, pooled: Tensor, level: Tensor) -> dict[str, Tensor]:
        """Compute calibrated logits of pooled features: attribute -> [B, K].

        pooled float32 [B, C, 4, 4], log-SNR float32 [B]. Raises ValueError for a wrong width.
        """
        if pooled.shape[1] != self.channels:
            raise ValueError(
                f"this ADP reads features of {self.channels} channels, and this model has {pooled.shape[1]}, because the ADP was made "
                "for another "
                "diffusion model: load an ADP that was trained on the connected model."
            )
        x = self.normalise(pooled, level).flatten(1)
        if self.kind == "linear":
            low, weight = interpolation(self.knots, level)
            out = x.new_empty(len(x), self.bias.shape[1])
            # By level, not by row: the weights of a level may be hundreds of megabytes, so they are not gathered per row.
            for i in low.unique().tolist():
                rows = low == i
                w = weight[rows, None]
                lower = F.linear(x[rows], self.weight[i], self.bias[i])
                j = min(i + 1, len(self.knots) - 1)
                out[rows] = lower if j == i else torch.lerp(lower, F.linear(x[rows], self.weight[j], self.bias[j]), w)
        else:
            scale, shift = self.modulate(level_embedding(level)).chunk(2, dim=-1)
            z = F.gelu(self.project(x) * (1 + scale) + shift)
            out = self.read(z + F.gelu(self.mix(z)))
        parts = out.split([len(c) for c in self.attributes.values()], dim=-1)
        return {a: part / at_level(self.temperature[a], self.knots, level)[:, None] for a, part in zip(self.attributes, parts, strict=True)}


def level_embedding(level: Tensor) -> Tensor:
    """Embed log-SNR [B] (about -10 to 10) as sinusoids: [B, 32]."""
    freqs = torch.exp(torch.linspace(math.log(0.05), math.log(2.0), 16, device=level.device))
    args = level[:, None] * freqs[None]
    return torch.cat([torch.sin(args), torch.cos(args)], dim=-1)


@dataclass(frozen=True)
class AdpFile:
    """An ADP with its moves and the facts of its file.

    Raises ValueError where ``unread`` names an attribute that the predictor reads.
    """

    predictor: AttributePredictor | None
    """Network that reads the attributes; None in a file that holds moves alone."""
    moves: dict[str, Move]
    """Attribute -> the move that calibration chose."""
    base_model: str
    """Name of the diffusion model."""
    info: dict[str, Any] = field(default_factory=dict)
    """Summary of the training and of the calibration."""
    alternatives: dict[str, dict[str, Move]] = field(default_factory=dict)
    """Attribute -> source -> the other moves, each at its own best sizes."""
    unread: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Classes of the attributes that have moves and that the predictor does not read."""
    site: str = MIDDLE
    """Where the predictor reads; moves name their own site."""

    def __post_init__(self) -> None:
        both = [a for a in self.unread if a in self.read]
        if both:
            raise ValueError(f"'{both[0]}' is listed both as read and as not read by the predictor of this ADP. Get the file again.")

    @property
    def read(self) -> dict[str, tuple[str, ...]]:
        """Classes of the attributes that the predictor reads."""
        return {} if self.predictor is None else self.predictor.attributes

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        """Classes of all attributes, those that are read first."""
        return {**self.read, **self.unread}

    @property
    def site_channels(self) -> dict[str, int]:
        """Feature width by site: what a model must have at each of them."""
        moves = [move for by_source in self.sources().values() for move in by_source.values()]
        read = {} if self.predictor is None else {self.site: self.predictor.channels}
        return {**read, **{m.site: m.vectors.shape[3] for m in moves}}

    def sources(self) -> dict[str, dict[str, Move]]:
        """List all moves: attribute -> source -> move, the best first."""
        attributes = dict.fromkeys([*self.moves, *self.alternatives])
        best = {a: {self.moves[a].source: self.moves[a]} if a in self.moves else {} for a in attributes}
        return {a: {**best[a], **self.alternatives.get(a, {})} for a in attributes}

    def text(self) -> str:
        """Describe the file, a line for each fact."""
        p = self.predictor
        what = "no predictor: images get their classes at random" if p is None else f"{p.kind}, {p.channels} channels"
        where = "" if p is None or self.site == MIDDLE else f", reads at {self.site}"
        lines = [f"ADP for {self.base_model or 'an unnamed model'} ({what}{where})"]
        for attribute, classes in self.attributes.items():
            move = self.moves.get(attribute)
            how = "read, not calibrated" if attribute in self.read else "not read, not calibrated"
            if move:
                seen = "" if attribute in self.read else "not read, "
                how = f"{seen}moved at {move.site} over log-SNR {move.window[0]:.1f} to {move.window[1]:.1f}"
            lines.append(f"{attribute}: {', '.join(classes)} ({how})")
        if "accuracy_mid" in self.info:
            lines.append(f"held-out accuracy in the middle of the window: {json.dumps(self.info['accuracy_mid'])}")
        return "\n".join(lines)


def save_adp(adp: AdpFile, path: str | os.PathLike[str]) -> None:
    """Write an ADP as fp16 safetensors (knots, statistics, temperatures and sizes in fp32)."""
    exact = ("knots", "mean", "std", "temperature")
    p = adp.predictor
    state = {} if p is None else p.state_dict()
    tensors = {f"adp.{k}": v if k.startswith(exact) else v.half() for k, v in state.items()}
    named = {_move_name(a): m for a, m in adp.moves.items()}
    named |= {_move_name(a, kind): m for a, by_source in adp.alternatives.items() for kind, m in by_source.items()}
    for name, move in named.items():
        tensors |= move.stored(name)
    meta = {
        **FORMAT.header(),
        "base_model": adp.base_model,
        "site": adp.site,
        "kind": p.kind if p else NO_PREDICTOR,
        "channels": str(p.channels if p else 0),
        "hidden": str(p.hidden if p else 0),
        "normalisation": "mean and standard deviation per channel of the 4x4 pooled features, interpolated over log-SNR",
        "attributes": json.dumps({k: list(v) for k, v in adp.attributes.items()}),
        "moves": json.dumps({a: _stated(m) for a, m in adp.moves.items()}),
        "alternatives": json.dumps({a: {kind: _stated(m) for kind, m in by.items()} for a, by in adp.alternatives.items()}),
        "info": json.dumps(adp.info),
    }
    if adp.unread:
        meta["unread"] = json.dumps([a for a in adp.attributes if a not in adp.read])
    write_safetensors(path, tensors, meta)


def load_adp(path: str | os.PathLike[str]) -> AdpFile:
    """Load what :func:`save_adp` wrote, in float32 on the CPU.

    Raises ValueError where the file is of another kind or damaged.
    """
    return FORMAT.load(path, _read_adp)


def _read_adp(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> AdpFile:
    attributes = named_classes(json.loads(meta["attributes"]))
    unread = {a: attributes[a] for a in json.loads(meta.get("unread", "[]"))}
    predictor = _read_predictor(tensors, meta, {a: c for a, c in attributes.items() if a not in unread})
    moves = {a: _read_move(tensors, m, a, len(attributes[a])) for a, m in json.loads(meta["moves"]).items()}
    alternatives = {
        a: {source: _read_move(tensors, m, a, len(attributes[a]), source) for source, m in by_source.items()}
        for a, by_source in json.loads(meta.get("alternatives", "{}")).items()
    }
    info = dict(json.loads(meta.get("info", "{}")))
    return AdpFile(predictor, moves, meta["base_model"], info, alternatives, unread, meta.get("site", MIDDLE))


def _read_predictor(
    tensors: Mapping[str, Tensor], meta: Mapping[str, str], read: Mapping[str, tuple[str, ...]]
) -> AttributePredictor | None:
    state = {k.removeprefix("adp."): v.float() for k, v in tensors.items() if k.startswith("adp.")}
    if meta["kind"] == NO_PREDICTOR:
        if state or read:
            raise ValueError("its metadata says that it has no predictor, but it holds a predictor or attributes that are read")
        return None
    knots, sizes = tensors["adp.knots"], (int(meta["channels"]), int(meta.get("hidden", 96)))
    check_knots(knots)
    check_finite(state)
    check_shapes(lambda: AttributePredictor(read, sizes[0], knots, meta["kind"], sizes[1]), state)
    predictor = AttributePredictor(read, sizes[0], knots, meta["kind"], sizes[1])
    predictor.load_state_dict(state)
    if not all(bool((t > 0).all()) for t in predictor.temperature.values()):
        raise ValueError("it has a temperature that is not above 0")
    return predictor.eval().requires_grad_(False)


def _move_name(attribute: str, source: str | None = None) -> str:
    """Return what the names of a move's tensors start with."""
    return f"move.{attribute}" if source is None else f"alternative.{source}.{attribute}"


def _stated(move: Move) -> dict[str, Any]:
    return {"site": move.site, "assign": move.assign, "source": move.source, "relative": move.relative}


def _read_move(tensors: Mapping[str, Tensor], stated: Mapping[str, Any], attribute: str, classes: int, source: str | None = None) -> Move:
    facts = {key: str(stated[key]) for key in ("site", "assign", "source")}
    move = Move(**facts, relative=bool(stated.get("relative", False)), **Move.read_stored(tensors, _move_name(attribute, source)))
    if not move.fits(classes):
        shapes = f"vectors {list(move.vectors.shape)} and sizes {list(move.sizes.shape)}"
        raise ValueError(f"the move of '{attribute}' has {shapes} for {classes} classes")
    return move
