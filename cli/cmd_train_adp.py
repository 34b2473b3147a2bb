"""``equipoise train-adp``: a predictor from a recorded feature set and a label file, and moves to steer by."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from ..charts.adp.figures import adp_curves
from ..methods.adp.train import train_adp
from ..methods.data.feature_set import FeatureSet, open_feature_set
from ..methods.labels.labels import LabelSet, read_csv
from ..models.adm_unet import AdmUNet
from ..models.adp import KINDS, AdpFile, load_adp, save_adp
from ..models.files import read_metadata
from ..shipped import weights
from .console import progress_bar

LEARN_STEPS = 500


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", type=Path, required=True, help="feature set, as 'equipoise sample --record DIR' writes it")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: file,ATTRIBUTE or file,ATTRIBUTE:CLASS,...")
    parser.add_argument("--attribute", required=True, action="append", help="attribute to learn; may be given several times")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write; the curves go beside it as PNG")
    parser.add_argument("--add-to", type=Path, metavar="FILE", help="an ADP whose other attributes are kept as they are")
    parser.add_argument("--kind", choices=KINDS, help=f"default {KINDS[0]}, or the kind of the ADP to add to")
    parser.add_argument("--epochs", type=int, default=12, help="passes at most; training ends where held-out images are read no better")
    parser.add_argument("--base-model", default="equipoise-portraits", help="name of the diffusion model, where the feature set has none")
    parser.add_argument("--seed", type=int, default=0, help="which images are held out, and the order of the others")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="MODEL",
        help="diffusion model of the test bed to find moves on, by trials (default: the shipped one, where the set was recorded on it)",
    )
    parser.add_argument("--no-moves", action="store_true", help="train the predictor alone: it reads, and nothing can be steered by it yet")
    parser.add_argument(
        "--learn",
        type=int,
        metavar="STEPS",
        help=f"steps in which moves are fitted through the model's decoder (default {LEARN_STEPS}; a few minutes); 0 tries directions read "
        "off the features instead, which reach fewer images",
    )
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="folder of the set's pictures (--out of 'equipoise sample'), to learn from; default: the set's own, or made again by seed",
    )
    parser.add_argument("--trial-images", type=int, default=96, help="images of a trial of the calibration; there are up to 31 trials")


def run(args: argparse.Namespace) -> int:
    if args.epochs < 1 or args.trial_images < 1:
        raise ValueError("--epochs and --trial-images are 1 or more.")
    if args.learn is not None and args.learn < 0:
        raise ValueError("--learn is a number of steps, or 0 for none.")
    features = open_feature_set(args.features)
    labels = read_csv(args.labels, attributes=args.attribute)
    old = load_adp(args.add_to) if args.add_to else None
    model = None if args.no_moves else args.calibrate or shipped_model(features)
    if model is None and (args.learn or args.images):
        raise ValueError("moves are found on a diffusion model: name it with --calibrate, and leave out --no-moves.")
    net = None if model is None else weights.diffusion(model)
    steps = 0 if net is None else _learning_steps(args, net, features)
    kind = args.kind or (old.predictor.kind if old and old.predictor else KINDS[0])
    file = train_adp(features, labels, kind, args.epochs, args.seed, old, args.base_model, progress_bar("training the ADP"))
    for said in file.info["verdict"].values():
        print(said, flush=True)
    if net is not None:
        file = _with_moves(args, net, file, features, labels, steps)
    elif not args.no_moves:
        print("no moves were looked for, as the set names no shipped model: name the one that it was recorded on with --calibrate MODEL.")
    save_adp(file, args.out)
    info, chart = file.info, args.out.with_suffix(".png")
    windows = {a: m.window for a, m in file.moves.items() if m.window[0] < m.window[1]}
    classes = {a: len(c) for a, c in file.attributes.items()}
    curves = adp_curves(info["accuracy_by_log_snr"], info.get("loss_by_log_snr", {}), classes, windows)
    Image.fromarray(curves).save(chart)
    print(f"wrote {args.out} and {chart}")
    return 0


def shipped_model(features: FeatureSet) -> Path | None:
    """The shipped model that a set says it was recorded on."""
    named = features.meta.get("base_model")
    for path in (weights.DIFFUSION, weights.DIFFUSION_PROFESSIONS):
        if named and path.is_file() and read_metadata(path).get("base_model") == named:
            return path
    return None


def _learning_steps(args: argparse.Namespace, net: AdmUNet, features: FeatureSet) -> int:
    """How many steps to learn for. Raises ValueError, before anything is trained, where it was asked for and cannot be done."""
    from .learn import cannot_learn

    if args.learn == 0:
        return 0
    reason = cannot_learn(net, features, args.images)
    if reason and (args.learn or args.images):
        raise ValueError(reason)
    if reason:
        print(f"directions read off the features are tried: {reason}")
    return 0 if reason else args.learn or LEARN_STEPS


def _with_moves(args: argparse.Namespace, net: AdmUNet, file: AdpFile, features: FeatureSet, labels: LabelSet, steps: int) -> AdpFile:
    from .calibrate import calibrate_file

    if steps:
        from .learn import learn_file

        learned = learn_file(net, file, features, labels, steps, args.images, args.seed, progress_bar)
        file = learned.file
        for line in learned.lines:
            print(line, flush=True)
    log = args.out.with_suffix(".trials.json")
    results = calibrate_file(net, file, features, labels, args.trial_images, log, progress_bar("calibrating"))
    for line in (line for r in results for line in r.lines):
        print(line)
    return results[-1].file
