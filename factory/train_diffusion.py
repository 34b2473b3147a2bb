"""Train the shipped diffusion models on the procedural portraits: unconditional, or conditional on the profession.

Velocity prediction (Salimans & Ho 2022) on 2x2 space-to-depth pixels (12 channels at 16x16), min-SNR-5 weights (Hang et al. 2023), moving
average of the weights. Velocity, not noise, because at a sigma of 157 a small network cannot state the noise exactly enough: its first
samples were coloured static. Resumable; the conditional model may start from the unconditional one's weights.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ..cli.schedule import TRAIN_STEPS, alphas_cumprod
from ..methods.core.trainer import AveragedSettings, AveragedTraining, Progress
from ..models.adm_unet import AdmConfig, AdmUNet
from ..models.files import parameters_of, read_safetensors, write_safetensors
from ..models.pixel_latents import space_to_depth
from .portraits import ATTRIBUTES, portraits

CONFIG = {
    "in_channels": 12,
    "out_channels": 12,
    "model_channels": 32,
    "channel_mult": (1, 2, 3),
    "num_res_blocks": 1,
    "attention": (False, False, True),
    "num_head_channels": 32,
    "norm_groups": 8,
}
POOL = 60_000
POOL_SEED = 1_000_000
NULL_LABEL = len(ATTRIBUTES["profession"])
NULL_SHARE = 0.1
"""Share of training rows whose label is replaced by the null label, so that CFG works (Ho & Salimans 2022)."""


def draw_profession_images(n: int = POOL, seed: int = POOL_SEED) -> tuple[Tensor, Tensor]:
    """Draw training images and professions, in chunks of 2,000.

    uint8 [n, 3, 32, 32] and int64 [n].
    """
    images, professions = [], []
    for start in range(0, n, 2000):
        chunk = portraits(min(2000, n - start), seed + start)
        images.append((chunk.images * 255).round().byte())
        professions.append(chunk.labels["profession"])
    return torch.cat(images), torch.cat(professions)


def train_diffusion(
    folder: Path,
    conditional: bool,
    steps: int,
    batch: int = 32,
    lr: float = 8e-4,
    seed: int = 0,
    start_from: Path | None = None,
    progress: Progress | None = None,
) -> AdmUNet:
    """Train in a folder, from its checkpoint if there is one; return the averaged network.

    ``start_from``: an exported model of the other kind.
    """
    torch.manual_seed(seed)
    net = AdmUNet(AdmConfig(**CONFIG, num_classes=NULL_LABEL + 1 if conditional else None))
    if conditional:
        torch.nn.init.zeros_(net.label_emb.weight)
    for module in net.modules():  # guided-diffusion starts the last layer of every residual branch at zero
        if hasattr(module, "out_layers"):
            torch.nn.init.zeros_(module.out_layers[3].weight)
        if hasattr(module, "proj_out"):
            torch.nn.init.zeros_(module.proj_out.weight)
    torch.nn.init.zeros_(net.out[2].weight)
    if start_from is not None:
        net.load_state_dict({k: v.float() for k, v in read_safetensors(start_from)[0].items()}, strict=False)
    training = AveragedTraining(net, AveragedSettings(lr, steps, seed, warmup=300, average=0.9995), folder)
    images, professions = draw_profession_images()
    abar = alphas_cumprod()
    snr = abar / (1 - abar)
    weight = snr.clamp(max=5.0) / (snr + 1)

    def loss(generator: torch.Generator) -> Tensor:
        index = torch.randint(0, len(images), (batch,), generator=generator)
        x0 = space_to_depth(images[index].float() / 255)
        t = torch.randint(0, TRAIN_STEPS, (batch,), generator=generator)
        noise = torch.randn(x0.shape, generator=generator)
        signal, sigma = abar[t].sqrt().view(-1, 1, 1, 1), (1 - abar[t]).sqrt().view(-1, 1, 1, 1)
        x = signal * x0 + sigma * noise
        y = None
        if conditional:
            y = professions[index]
            y = torch.where(torch.rand(batch, generator=generator) < NULL_SHARE, torch.full_like(y, NULL_LABEL), y)
        error = ((net(x, t, y=y) - (signal * noise - sigma * x0)) ** 2).mean(dim=(1, 2, 3))
        return (error * weight[t]).mean()

    training.train(loss, progress)
    return training.ema


def export_diffusion(net: AdmUNet, path: Path, trained: dict[str, object]) -> None:
    """Write the fp16 file that "Load Unconditional Diffusion" reads; ``trained`` records how it was made."""
    meta = {
        "format": "equipoise-diffusion",
        "format_version": "1",
        "base_model": "equipoise-portraits-conditional" if net.num_classes else "equipoise-portraits",
        "noise_schedule": "linear",
        "prediction": "v",
        "pixel_unshuffle": "2",
        "image_size": "32",
        "num_head_channels": str(net.config.num_head_channels),
        "use_new_attention_order": "false",
        "norm_groups": str(net.config.norm_groups),
        "licence": "GPL-3.0",
        "training": json.dumps(trained),
    }
    if net.num_classes:
        meta |= {"null_label": str(NULL_LABEL), "class_names": json.dumps(list(ATTRIBUTES["profession"]))}
    write_safetensors(path, parameters_of(net, torch.float16), meta)
