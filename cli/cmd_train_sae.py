"""``equipoise train-sae``: train a sparse autoencoder on a recorded feature set, in one process or in several under torchrun."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from ..methods.data.feature_set import open_feature_set
from ..methods.sae.train import checkpoint_path, train_sae
from ..methods.sae.training import SaeSettings
from ..models.sae import ACTIVATIONS, save_sae
from .console import progress_bar

DEFAULT = SaeSettings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--features", type=Path, required=True, help="feature set, as 'equipoise sample --record DIR' writes it")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--latents", type=int, default=DEFAULT.latents, help="0 (default): eight times as many as there are channels")
    parser.add_argument("--k", type=int, default=DEFAULT.k, help=f"latents that are active at a position (default {DEFAULT.k})")
    parser.add_argument("--activation", choices=ACTIVATIONS, default=DEFAULT.activation, help="batch-topk: k on average over a batch")
    parser.add_argument("--steps", type=int, default=DEFAULT.steps, help=f"default {DEFAULT.steps}")
    parser.add_argument("--batch", type=int, default=DEFAULT.batch, help=f"tokens per step, over all processes (default {DEFAULT.batch})")
    parser.add_argument("--lr", type=float, default=DEFAULT.lr, help="learning rate of Adam; 0 (default): by the width of the features")
    parser.add_argument("--seed", type=int, default=DEFAULT.seed, help="decides which images are held out, and the order of the tokens")
    parser.add_argument("--base-model", default="", help="name of the diffusion model, if the feature set has none")
    parser.add_argument("--licence", default="", help="licence of the file, written into it")
    parser.add_argument("--device", help="default: an NVIDIA GPU if there is one, else the CPU")
    parser.add_argument("--from-scratch", action="store_true", help="do not resume from the checkpoint in the set's folder")


def run(args: argparse.Namespace) -> int:
    """Train an autoencoder and write its file."""
    settings = SaeSettings(
        latents=args.latents,
        k=args.k,
        activation=args.activation,
        steps=args.steps,
        batch=args.batch,
        lr=args.lr,
        seed=args.seed,
    )
    with processes(args.device) as (first, device):
        features = open_feature_set(args.features)
        path = checkpoint_path(features, settings)
        if args.from_scratch and first:
            path.unlink(missing_ok=True)
        if args.from_scratch and dist.is_initialized():
            dist.barrier()
        bar = progress_bar("training the autoencoder") if first else None
        file = train_sae(features, settings, bar, path, args.base_model, device)
        if first:
            if args.licence:
                file.info["licence"] = args.licence
            save_sae(file, args.out)
            print(file.text())
            print(f"wrote {args.out}")
    return 0


@contextmanager
def processes(wanted: str | None) -> Iterator[tuple[bool, torch.device]]:
    """Join the processes that torchrun started, if it did.

    Returns whether this is the first one, and its device.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ
    number = int(os.environ.get("LOCAL_RANK", "0"))
    if wanted is None:
        wanted = f"cuda:{number if several else 0}" if torch.cuda.device_count() > number else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        raise ValueError(f"'{wanted}' is not a device that PyTorch knows: use cpu, cuda or cuda:N.") from None
    if not several:
        yield True, device
        return
    # Long enough for one process to read while the others wait.
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=timedelta(minutes=30))
    try:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        yield dist.get_rank() == 0, device
        dist.barrier()  # torchrun takes a process that leaves while another still writes for a failed one
    finally:
        dist.destroy_process_group()
