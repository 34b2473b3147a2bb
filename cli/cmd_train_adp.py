"""``equipoise train-adp``: train an ADP on a recorded feature set and a label file, with the moves that guidance uses."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from PIL import Image

from ..charts.adp.figures import adp_curves
from ..methods.adp.train import train_adp
from ..methods.data.feature_set import FeatureSet, open_feature_set
from ..methods.guidance.fit_moves import FitSettings
from ..methods.labels.labels import LabelSet, read_csv
from ..models.adm_unet import AdmUNet
from ..models.adp import KINDS, AdpFile, load_adp, save_adp
from ..models.files import read_metadata
from ..shipped import weights
from .console import progress_bar

LEARN_STEPS = 500
"""Default number of steps in which moves are fitted."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--features", type=Path, required=True, help="feature set, as 'equipoise sample --record DIR' writes it")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: file,ATTRIBUTE or file,ATTRIBUTE:CLASS,...")
    parser.add_argument("--attribute", required=True, action="append", help="attribute to learn; may be given several times")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write; the curves go beside it as PNG")
    parser.add_argument("--add-to", type=Path, metavar="FILE", help="an ADP whose other attributes stay as they are")
    parser.add_argument("--kind", choices=KINDS, help=f"default {KINDS[0]}, or the kind of the ADP to add to")
    parser.add_argument("--epochs", type=int, default=12, help="most passes; training ends early if held-out images are read no better")
    parser.add_argument("--base-model", default="equipoise-portraits", help="name of the diffusion model, if the feature set has none")
    parser.add_argument("--seed", type=int, default=0, help="decides which images are held out, and the order of the others")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="MODEL",
        help="diffusion model of the test bed on which moves are fitted and calibrated (default: the shipped one that the set names)",
    )
    parser.add_argument("--no-moves", action="store_true", help="train the predictor alone: it reads, but guidance cannot use it yet")
    parser.add_argument(
        "--learn",
        type=int,
        metavar="STEPS",
        help=f"steps in which moves are fitted through the model's decoder (default {LEARN_STEPS}; a few minutes); 0 tests directions that "
        "are read from the features instead, which reach fewer images",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the set's pictures (--out of 'equipoise sample'); default: the set's own, or made again from their seeds",
    )
    parser.add_argument("--trial-images", type=int, default=96, help="images per trial of the calibration; there are up to 31 trials")


def run(args: argparse.Namespace) -> int:
    """Train an ADP, find moves, and write the file and its chart."""
    if args.epochs < 1 or args.trial_images < 1:
        raise ValueError("--epochs and --trial-images are 1 or more.")
    if args.learn is not None and args.learn < 0:
        raise ValueError("--learn is a number of steps, or 0 for none.")
    features = open_feature_set(args.features)
    labels = read_csv(args.labels, attributes=args.attribute)
    old = load_adp(args.add_to) if args.add_to else None
    model = None if args.no_moves else args.calibrate or shipped_model(features)
    if model is None and (args.learn or args.images):
        raise ValueError("moves need a diffusion model: name it with --calibrate, and leave out --no-moves.")
    net = None if model is None else weights.diffusion(model)
    steps = 0 if net is None else _learning_steps(args, net, features)
    kind = args.kind or (old.predictor.kind if old and old.predictor else KINDS[0])
    named = replace(features, meta={**features.meta, "base_model": features.meta.get("base_model") or args.base_model})
    adp = train_adp(named, labels, kind, args.epochs, args.seed, old, progress_bar("training the ADP"))
    for verdict in adp.info["verdict"].values():
        print(verdict, flush=True)
    if net is not None:
        adp = _with_moves(args, net, adp, features, labels, steps)
    elif not args.no_moves:
        print("The ADP has no moves, as the set names no shipped model. Name the model that it was recorded on with --calibrate MODEL.")
    save_adp(adp, args.out)
    info, chart = adp.info, args.out.with_suffix(".png")
    windows = {a: m.window for a, m in adp.moves.items() if m.window[0] < m.window[1]}
    classes = {a: len(c) for a, c in adp.attributes.items()}
    curves = adp_curves(info["accuracy_by_log_snr"], info.get("loss_by_log_snr", {}), classes, windows)
    Image.fromarray(curves).save(chart)
    print(f"wrote {args.out} and {chart}")
    return 0


def shipped_model(features: FeatureSet) -> Path | None:
    """Return the shipped model that a set was recorded on.

    By the name in the set.
    """
    named = features.meta.get("base_model")
    for path in (weights.DIFFUSION, weights.DIFFUSION_PROFESSIONS):
        if named and path.is_file() and read_metadata(path).get("base_model") == named:
            return path
    return None


def _learning_steps(args: argparse.Namespace, net: AdmUNet, features: FeatureSet) -> int:
    """Return the number of steps of the fit.

    Raises ValueError, before anything is trained, if the user asks for a fit that is not possible.
    """
    from .learn import cannot_learn

    if args.learn == 0:
        return 0
    reason = cannot_learn(net, features, args.images)
    if reason and (args.learn or args.images):
        raise ValueError(reason)
    if reason:
        print(f"The command tests directions that are read from the features instead: {reason}")
    return 0 if reason else args.learn or LEARN_STEPS


def _with_moves(args: argparse.Namespace, net: AdmUNet, adp: AdpFile, features: FeatureSet, labels: LabelSet, steps: int) -> AdpFile:
    from .calibrate import calibrate_moves

    if steps:
        from .learn import BATCH, learn_moves

        settings = FitSettings(steps=steps, batch=BATCH, seed=args.seed)
        learned = learn_moves(net, adp, features, labels, settings, args.images, progress_bar)
        adp = learned.adp
        for line in learned.lines:
            print(line, flush=True)
    log = args.out.with_suffix(".trials.json")
    results = calibrate_moves(net, adp, features, labels, args.trial_images, log, progress_bar("calibrating"))
    for result in results:
        for line in result.lines:
            print(line)
    return results[-1].file
