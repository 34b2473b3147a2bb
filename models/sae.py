"""k-sparse autoencoder of U-Net features, position by position, and its file format.

After Makhzani & Frey 2014 (k-sparse), Gao et al. 2024 (TopK with pre-bias and AuxK) and Bussmann et al. 2024 (BatchTopK), as DiffLens (Shi
et al., CVPR 2025, section 3) uses them on h. It works on single positions, so one file serves every image size; features are normalised by
noise level, so it serves every scheduler and step count.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .digests import stored_digest_of
from .files import FileFormat, check_finite, write_safetensors
from .noise_level import at_level, check_knots
from .topk import top_k

FORMAT = FileFormat(
    "equipoise-sae",
    other="is not a sparse autoencoder",
    choose="choose a file from models/equipoise/sae that Equipoise trained",
    mend="download it again, or train it again",
    required=("base_model", "site", "channels", "latents", "k", "activation"),
)
TOPK, BATCH_TOPK = "topk", "batch-topk"
ACTIVATIONS = (TOPK, BATCH_TOPK)
EXACT = ("knots", "mean", "scale", "threshold")
"""Tensors that a file holds in fp32; the weights are in fp16."""
CHUNK = 2**24
"""Upper limit of activations, of all latents, that are computed at a time (64 MiB in fp32)."""


class SparseAutoencoder(nn.Module):
    """Autoencoder of the h of one position, with sparse activations z >= 0.

    ``activation``: "topk" keeps the k largest activations of every position; "batch-topk" is trained to k on average, and keeps those above
    ``threshold``. Buffers: ``knots`` [T] ascending log-SNR, ``mean`` [T, C] and ``scale`` [T] (root mean square of the centred h),
    interpolated over log-SNR. Parameters: ``encoder`` [m, C], ``encoder_bias`` [m], ``decoder`` [m, C] with rows of norm 1, ``bias`` [C],
    which is subtracted before encoding and added after decoding. Raises ValueError if k is not between 1 and the number of features.
    """

    def __init__(self, channels: int, latents: int, k: int, knots: Tensor, activation: str = TOPK) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"the activation of an autoencoder is {' or '.join(ACTIVATIONS)}, not '{activation}'.")
        if channels < 1 or latents < 1 or not 1 <= k <= latents:
            raise ValueError(
                f"an autoencoder of {channels} channels with {latents} latents cannot have {k} active latents: choose k between 1 and the "
                "number of latents."
            )
        self.channels, self.latents, self.k, self.activation = channels, latents, k, activation
        self.register_buffer("knots", knots.detach().float().clone())
        self.register_buffer("mean", torch.zeros(len(knots), channels))
        self.register_buffer("scale", torch.ones(len(knots)))
        self.register_buffer("threshold", torch.zeros(()))
        # Random atoms, the encoder being their transpose (Gao et al. 2024, A.1); drawn apart, so that the caller's random numbers stay.
        atoms = F.normalize(torch.randn(latents, channels, generator=torch.Generator().manual_seed(0)), dim=1)
        self.decoder = nn.Parameter(atoms)
        self.encoder = nn.Parameter(atoms.clone())
        self.encoder_bias = nn.Parameter(torch.zeros(latents))
        self.bias = nn.Parameter(torch.zeros(channels))

    # -- copies -----------------------------------------------------------------------------------------------------------------------

    def copied(self) -> SparseAutoencoder:
        """Copy the autoencoder in float32 and without inference tensors.

        So gradients may pass through it.
        """
        twin = SparseAutoencoder(self.channels, self.latents, self.k, self.knots.clone(), self.activation)
        twin.load_state_dict({k: v.clone() for k, v in self.state_dict().items()})
        return twin.eval().requires_grad_(False)

    def on(self, device: torch.device) -> SparseAutoencoder:
        """Return the autoencoder itself if it is on a device, else a copy there.

        The copy has the same precision.
        """
        if self.knots.device == device:
            return self
        with torch.inference_mode(False), torch.no_grad():
            return copy.deepcopy(self).to(device)

    # -- by noise level ---------------------------------------------------------------------------------------------------------------

    def normalise(self, h: Tensor, level: Tensor) -> Tensor:
        """Normalise h at its noise level: (h - mean) / scale, float32.

        h [B, C, H, W] at log-SNR [B]. Raises ValueError for a wrong width.
        """
        self._check_width(h)
        mean, scale = self._statistics(level)
        return (h.float() - mean[:, :, None, None]) / scale[:, None, None, None]

    def denormalise(self, x: Tensor, level: Tensor) -> Tensor:
        """Invert :meth:`normalise`."""
        mean, scale = self._statistics(level)
        return x * scale[:, None, None, None] + mean[:, :, None, None]

    # -- maps -------------------------------------------------------------------------------------------------------------------------

    def encode(self, h: Tensor, level: Tensor) -> Tensor:
        """Compute the activations of all features: float32 [B, m, H, W].

        h [B, C, H, W] at log-SNR [B]. None is below 0; with "topk", at most k per position are not 0.
        """
        return self.active(h, level, None)

    def active(self, h: Tensor, level: Tensor, features: Tensor | None) -> Tensor:
        """Compute the activations of chosen features alone: float32 [B, F, H, W].

        They equal ``encode(h, level)[:, features]``.

        features: int64 [F] without repeats, None for all. Memory: all latents' activations are made for a part of the positions at a time.
        """
        x = _tokens(self.normalise(h, level))
        columns = self.latents if features is None else len(features)
        out = x.new_zeros(len(x), columns)
        # Where each latent's activation goes; those that were not asked for go to a last column, which is cut off.
        column_of = None
        if features is not None:
            column_of = torch.full((self.latents,), columns, device=x.device)
            column_of[features.to(x.device)] = torch.arange(columns, device=x.device)
        for rows in self._parts(len(x)):
            if self.activation == BATCH_TOPK:
                z = self._above(self.preactivations(x[rows]))
                out[rows] = z if features is None else z[:, features.to(x.device)]
                continue
            values, chosen = self.encode_tokens(x[rows])
            if column_of is None:
                out[rows] = torch.zeros_like(out[rows]).scatter_(1, chosen, values)
            else:
                wide = x.new_zeros(len(values), columns + 1)
                out[rows] = wide.scatter_(1, column_of[chosen], values)[:, :columns]
        return _maps(out, h)

    def decode(self, z: Tensor, level: Tensor) -> Tensor:
        """Decode activations [B, m, H, W] to h, float32 [B, C, H, W].

        With bias, mean and scale.
        """
        return self.denormalise(_maps(self.decode_tokens(_tokens(z)), z), level)

    def forward(self, h: Tensor, level: Tensor) -> Tensor:
        """Reconstruct h [B, C, H, W] at log-SNR [B], float32."""
        x = _tokens(self.normalise(h, level))
        out = torch.cat([self.reconstruct_tokens(x[rows]) for rows in self._parts(len(x))])
        return self.denormalise(_maps(out, h), level)

    def delta(self, dz: Tensor, level: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the change of h for a change of activations: float32 [B, C, H, W].

        dz [B, F, H, W] of these features, int64 [F] (None: all). No bias is added, so that a dz of zeros gives zeros exactly and the
        autoencoder's error on h is kept.
        """
        atoms = self.decoder if features is None else self.decoder[features.to(self.decoder.device)]
        change = _maps((_tokens(dz).to(atoms.dtype) @ atoms).float(), dz)
        return change * self._statistics(level)[1][:, None, None, None]

    # -- tokens: normalised features of single positions --------------------------------------------------------------------------------

    def preactivations(self, x: Tensor) -> Tensor:
        """Compute the values that the activations are chosen from.

        Tokens [N, C] -> float32 [N, m].
        """
        w = self.encoder
        return F.linear((x - self.bias.float()).to(w.dtype), w, self.encoder_bias.to(w.dtype)).float()

    def encode_tokens(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k largest activations of tokens, and their features.

        Tokens [N, C] -> activations [N, k], none below 0, and feature numbers int64 [N, k], in no order.
        """
        values, chosen = top_k(self.preactivations(x), self.k)
        return values.relu(), chosen

    def decode_tokens(self, z: Tensor) -> Tensor:
        """Decode activations [N, m] to tokens, float32 [N, C]."""
        return (z.to(self.decoder.dtype) @ self.decoder).float() + self.bias.float()

    def reconstruct_tokens(self, x: Tensor) -> Tensor:
        """Reconstruct tokens [N, C], float32."""
        if self.activation == BATCH_TOPK:
            return self.decode_tokens(self._above(self.preactivations(x)))
        values, chosen = self.encode_tokens(x)
        if values.requires_grad or x.device.type not in ("cpu", "cuda"):
            return self.decode_tokens(x.new_zeros(len(x), self.latents).scatter(1, chosen, values))
        values = values.to(self.decoder.dtype)
        return F.embedding_bag(chosen, self.decoder, mode="sum", per_sample_weights=values).float() + self.bias.float()

    def _above(self, before: Tensor) -> Tensor:
        return before * (before > self.threshold.clamp(min=0))

    def _parts(self, n: int) -> Iterator[slice]:
        size = max(1, CHUNK // self.latents)
        yield from (slice(start, start + size) for start in range(0, n, size))

    def _statistics(self, level: Tensor) -> tuple[Tensor, Tensor]:
        level = level.to(self.knots)
        return at_level(self.mean, self.knots, level), at_level(self.scale, self.knots, level)

    def _check_width(self, h: Tensor) -> None:
        if h.ndim != 4 or h.shape[1] != self.channels:
            raise ValueError(
                f"this autoencoder was trained on features of {self.channels} channels, and this h has the shape {list(h.shape)}, so it "
                "belongs to another diffusion model or another site: load an autoencoder that was trained on this model and site."
            )


def _tokens(x: Tensor) -> Tensor:
    """Turn maps [B, C, H, W] into tokens [B * H * W, C]."""
    return x.movedim(1, -1).flatten(0, 2)


def _maps(tokens: Tensor, like: Tensor) -> Tensor:
    """Turn tokens [B * H * W, C] into maps [B, C, H, W]."""
    b, _, height, width = like.shape
    return tokens.view(b, height, width, tokens.shape[1]).movedim(-1, 1).contiguous()


@dataclass(frozen=True)
class SaeFile:
    """An autoencoder with the facts of its file."""

    sae: SparseAutoencoder
    """The network."""
    site: str
    """Where its features come from: "middle" or "output.N"."""
    base_model: str
    """Name of the diffusion model."""
    info: dict[str, Any] = field(default_factory=dict)
    """Summary of the training and of what was measured."""
    stored_digest: str = ""
    """Digest in the file, if the weights were loaded in another precision."""

    @property
    def digest(self) -> str:
        """Return a short hash of the tensors as a file stores them.

        Other files state by it which autoencoder they were made with.
        """
        return self.stored_digest or stored_digest_of(_stored(self.sae))

    def text(self) -> str:
        """Describe the file, a line for each fact."""
        s = self.sae
        how = f"the {s.k} largest of each position" if s.activation == TOPK else f"{s.k} of each position on average"
        what = f"{s.channels} channels, {s.latents} latents, {how}"
        lines = [f"Sparse autoencoder for {self.base_model or 'an unnamed model'} at {self.site}: {what}"]
        if "fvu" in self.info:
            lines.append(
                f"held-out: unexplained variance {self.info['fvu']:.3f}, {self.info['l0']:.1f} latents active per position, "
                f"{self.info['dead_share']:.1%} never active"
            )
        return "\n".join(lines)


def save_sae(sae: SaeFile, path: str | os.PathLike[str]) -> None:
    """Write an autoencoder as safetensors: weights in fp16, statistics in fp32."""
    s = sae.sae
    meta = {
        **FORMAT.header(),
        "base_model": sae.base_model,
        "site": sae.site,
        "channels": str(s.channels),
        "latents": str(s.latents),
        "k": str(s.k),
        "activation": s.activation,
        "normalisation": "mean per channel and one scale, interpolated over log-SNR",
        "digest": sae.digest,
        "info": json.dumps(sae.info),
        "licence": str(sae.info.get("licence", "")),
    }
    write_safetensors(path, _stored(s), meta)


def load_sae(path: str | os.PathLike[str], dtype: torch.dtype = torch.float32) -> SaeFile:
    """Load what :func:`save_sae` wrote, on the CPU.

    Weights in ``dtype`` (float32 or bfloat16), statistics in float32.

    Raises ValueError where the file is of another kind or damaged.
    """
    loaded = FORMAT.load(path, _read_sae)
    for weight in (loaded.sae.encoder, loaded.sae.decoder, loaded.sae.encoder_bias, loaded.sae.bias):
        weight.data = weight.data.to(dtype)
    return loaded


def _read_sae(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> SaeFile:
    channels, latents, k = (int(meta[key]) for key in ("channels", "latents", "k"))
    if tuple(tensors["decoder"].shape) != (latents, channels):  # before any memory is taken
        raise ValueError(f"its decoder has the shape {list(tensors['decoder'].shape)}, and its metadata says {[latents, channels]}")
    check_knots(tensors["knots"])
    sae = SparseAutoencoder(channels, latents, k, tensors["knots"], meta["activation"])
    sae.load_state_dict({key: value.float() for key, value in tensors.items()})
    info = dict(json.loads(meta.get("info", "{}")))
    check_finite(tensors)
    if not bool((sae.scale > 0).all()):
        raise ValueError("it has a scale that is not above 0")
    return SaeFile(sae.eval().requires_grad_(False), meta["site"], meta["base_model"], info, stored_digest_of(_stored(sae)))


def _stored(sae: SparseAutoencoder) -> dict[str, Tensor]:
    """Return the tensors as a file holds them."""
    return {key: value.float() if key in EXACT else value.half() for key, value in sae.state_dict().items()}
