"""``equipoise train-adp``: a predictor from a recorded feature set and a label file."""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from ..charts.adp import adp_curves
from ..methods.feature_set import open_feature_set
from ..methods.labels import read_csv
from ..methods.train_adp import train_file
from ..models.adp import KINDS, load_adp, save_adp
from . import weights
from .console import progress_bar


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
    parser.add_argument("--calibrate", type=Path, metavar="MODEL", help="find moves too, by trials on this diffusion model of the test bed")
    parser.add_argument("--trial-images", type=int, default=96, help="images of a trial of the calibration; there are up to 31 trials")


def run(args: argparse.Namespace) -> int:
    if args.epochs < 1 or args.trial_images < 1:
        raise ValueError("--epochs and --trial-images are 1 or more.")
    features = open_feature_set(args.features)
    labels = read_csv(args.labels, attributes=args.attribute)
    old = load_adp(args.add_to) if args.add_to else None
    kind = args.kind or (old.predictor.kind if old else KINDS[0])
    bar = progress_bar("training the ADP")
    file = train_file(features, labels, kind, args.epochs, args.seed, old, args.base_model, bar)
    for said in file.info["verdict"].values():
        print(said)
    if args.calibrate:
        from .calibrate import calibrate_file

        net, log = weights.diffusion(args.calibrate), args.out.with_suffix(".trials.json")
        results = calibrate_file(net, file, features, labels, args.trial_images, log, progress_bar("calibrating"))
        file = results[-1].file
        for line in (line for r in results for line in r.lines):
            print(line)
    save_adp(file, args.out)
    info, chart = file.info, args.out.with_suffix(".png")
    windows = {a: m.window for a, m in file.moves.items() if m.window[0] < m.window[1]}
    classes = {a: len(c) for a, c in file.attributes.items()}
    curves = adp_curves(info["accuracy_by_log_snr"], info.get("loss_by_log_snr", {}), classes, windows)
    Image.fromarray(curves).save(chart)
    print(f"wrote {args.out} and {chart}")
    return 0
