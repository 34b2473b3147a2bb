"""``equipoise train-portraits``: make the models that ship with the pack, one at a time, resumable."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch

from ..cli.console import progress_bar
from ..cli.publish import as_json
from ..models.attribute_classifier import save_classifier
from ..models.files import write_text
from ..shipped import weights
from .training_charts import redraw

ORDER = ("unconditional", "labeller", "judge", "conditional", "adp", "adp-professions", "text", "adp-text", "steering", "steering-text")
DEFAULT_STEPS = {
    "unconditional": 22_500,
    "conditional": 5_000,
    "labeller": 13_000,
    "judge": 11_000,
    "adp": 1_600,
    "adp-professions": 1_600,
    "text": 9_000,
    "adp-text": 500,
    "steering": 2_400,
    "steering-text": 2_400,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("what", choices=ORDER, help="which model; in this order, as the later ones use the earlier ones")
    parser.add_argument("--folder", type=Path, required=True, help="folder for checkpoints and logs; training resumes from what is there")
    parser.add_argument("--steps", type=int, help="training steps")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads; one for each free core")
    parser.add_argument("--start", type=Path, help="text: unconditional model to start from (default: the shipped one)")
    parser.add_argument("--ship", action="store_true", help="write the result and its log below shipped/weights when done")


def run(args: argparse.Namespace) -> int:
    """Make one model, and ship it on request."""
    torch.set_num_threads(args.threads)
    steps, bar = args.steps or DEFAULT_STEPS[args.what], progress_bar(args.what)
    args.folder.mkdir(parents=True, exist_ok=True)
    out = args.folder / "model.safetensors"
    if args.what in ("unconditional", "conditional"):
        destination = _train_diffusion(args.what == "conditional", args.folder, out, steps, bar)
    elif args.what in ("labeller", "judge"):
        destination = _train_classifier(args.what, args.folder, out, steps, bar)
    elif args.what == "text":
        destination = _train_text(args.folder, out, steps, args.start or weights.DIFFUSION, bar)
    elif args.what == "adp-text":
        destination = _make_text_adp(args.folder, out, steps)
    elif args.what in ("steering", "steering-text"):
        return _make_steering(args.what == "steering-text", args.folder, steps, args.ship)
    else:
        destination = _make_adp(args.what == "adp-professions", args.folder, out, steps, bar)
    print(f"wrote {out}")
    if args.ship:
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(out, destination)
        shutil.copyfile(args.folder / "log.json", destination.with_suffix(".log.json"))
        print(f"shipped as {destination}")
        redraw()
    return 0


def _train_diffusion(conditional: bool, folder: Path, out: Path, steps: int, bar) -> Path:
    from .train_diffusion import POOL, POOL_SEED, export_diffusion, train_diffusion

    start = weights.DIFFUSION if conditional else None
    lr = 5e-4 if conditional else 8e-4
    net = train_diffusion(folder, conditional, steps, lr=lr, start_from=start, progress=bar)
    export_diffusion(
        net,
        out,
        {
            "steps": steps,
            "batch": 32,
            "lr": lr,
            "seed": 0,
            "pool": POOL,
            "pool_seed": POOL_SEED,
            "start_from": start.name if start else None,
        },
    )
    return weights.DIFFUSION_PROFESSIONS if conditional else weights.DIFFUSION


def _train_classifier(kind: str, folder: Path, out: Path, steps: int, bar) -> Path:
    from .train_classifiers import BETWEEN_POOL, POOL, SEEDS, draw_unseen, drawn_accuracy, train_portrait_classifier

    net = train_portrait_classifier(kind, folder, steps, progress=bar)
    reached = drawn_accuracy(net, *draw_unseen())
    print(f"held-out accuracy on drawn portraits: {reached}")
    made = {"steps": steps, "batch": 64, "lr": 1e-3, "pool": POOL, "between_pool": BETWEEN_POOL, "seed": SEEDS[kind]}
    save_classifier(net, out, {"licence": "GPL-3.0", "accuracy_drawn": json.dumps(reached), "training": json.dumps(made)})
    return weights.LABELLER if kind == "labeller" else weights.JUDGE


def _make_adp(conditional: bool, folder: Path, out: Path, steps: int, bar) -> Path:
    from .make_adp import make_adp

    make_adp(conditional, folder, out, steps, bar)
    return weights.ADP_PROFESSIONS if conditional else weights.ADP


def _train_text(folder: Path, out: Path, steps: int, start: Path, bar) -> Path:
    """Train the text model.

    It boots a ComfyUI (COMFYUI_PATH) in this process, because the network is made of its classes.
    """
    from .host_process import boot_host

    threads = torch.get_num_threads()
    boot_host()
    torch.set_num_threads(threads)
    from .captions import vocabulary
    from .text_training import TextNet, Tokens, export_text_model, warm_start
    from .train_diffusion import POOL, POOL_SEED
    from .train_text import text_settings, train_text

    torch.manual_seed(0)
    tokens = Tokens(vocabulary())
    net = TextNet(len(tokens.ids))
    warm_start(net, start)
    lr = 6e-4
    net = train_text(net, tokens, folder, text_settings(steps, lr), progress=bar)
    made = {"steps": steps, "batch": 32, "lr": lr, "seed": 0, "pool": POOL, "pool_seed": POOL_SEED, "start_from": start.name}
    export_text_model(net, tokens.ids, out, made)
    return weights.TEXT


def _make_steering(text: bool, folder: Path, steps: int, ship: bool) -> int:
    """Make autoencoder and bias features through the host's samplers.

    The folder is the host's base directory and holds all stages.
    """
    from .host_process import boot_host

    threads = torch.get_num_threads()
    boot_host(folder)
    torch.set_num_threads(threads)
    from .make_steering import make_steering

    made = make_steering(text, folder, steps, lambda text: print(text, flush=True))
    destinations = (weights.SAE_TEXT, weights.BIAS_FEATURES_TEXT) if text else (weights.SAE, weights.BIAS_FEATURES)
    for name, destination, file in zip(("sae", "bias_features"), destinations, made, strict=True):
        log = folder / f"{name}.log.json"
        write_text(log, json.dumps(as_json(file.info), indent=1))
        print(f"wrote {folder / name}.safetensors")
        if ship:
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / f"{name}.safetensors", destination)
            shutil.copyfile(log, destination.with_suffix(".log.json"))
            print(f"shipped as {destination}")
    return 0


def _make_text_adp(folder: Path, out: Path, steps: int) -> Path:
    """Make the text model's ADP through the host's samplers.

    The folder is the host's base directory and holds all stages.
    """
    from .host_process import boot_host

    threads = torch.get_num_threads()
    boot_host(folder)
    torch.set_num_threads(threads)
    from .text_adp import make_text_adp

    with torch.inference_mode():  # as the host runs nodes
        file = make_text_adp(out, steps, lambda text: print(text, flush=True))
    write_text(folder / "log.json", json.dumps(file.info, indent=1))
    return weights.ADP_TEXT
