"""``equipoise find-bias-features``: find the features of an autoencoder that carry an attribute."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from PIL import Image

from ..charts.bias_features.ranking import bias_features_chart, ranking_facts
from ..methods.adp.train import train_adp
from ..methods.bias_features.ablation import ablation_lines
from ..methods.bias_features.find import BASELINES, AttributionSettings, find_bias_features, reader_of
from ..methods.data.feature_set import FeatureSet, open_feature_set
from ..methods.labels.labels import LabelSet, read_csv
from ..models.adp import AdpFile, load_adp
from ..models.bias_features import save_bias_features
from ..models.sae import load_sae
from .console import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("--features", type=Path, required=True, help="feature set, recorded at the autoencoder's site")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: file,ATTRIBUTE or file,ATTRIBUTE:CLASS,...")
    parser.add_argument("--sae", type=Path, required=True, help="sparse autoencoder, as 'equipoise train-sae' writes it")
    parser.add_argument("--adp", type=Path, help="ADP that reads at that site (default: a linear one is trained on the set at once)")
    parser.add_argument("--attribute", required=True, action="append", help="attribute to find features of; may be given several times")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write; a chart per attribute goes beside it as PNG")
    parser.add_argument("--per-class", type=int, default=32, metavar="N", help="features per class, at most")
    parser.add_argument(
        "--beside",
        type=float,
        default=math.inf,
        metavar="X",
        help="leave out features that carry more than X times as much of other attributes (default: none is left out)",
    )
    parser.add_argument("--resamples", type=int, default=100, help="resamples of the bootstrap that measures stability; 0 for none")
    parser.add_argument("--baseline", choices=BASELINES, default=BASELINES[0], help="what attributions are measured from")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of the predictor that is trained without --adp")
    parser.add_argument("--seed", type=int, default=0, help="decides which images are held out, and the resamples")


def run(args: argparse.Namespace) -> int:
    """Find bias features, and write their file and charts."""
    if args.epochs < 1:
        raise ValueError("--epochs is 1 or more.")
    settings = AttributionSettings(args.per_class, args.baseline, max_side_effect=args.beside, resamples=args.resamples, seed=args.seed)
    features, labels = open_feature_set(args.features), read_csv(args.labels)
    labels.only(args.attribute)
    sae = load_sae(args.sae)
    adp = load_adp(args.adp) if args.adp else _trained(args, features, labels)
    reader = reader_of(adp, sae)
    file = find_bias_features(features, labels, sae, reader, args.attribute, settings, progress_bar("finding bias features"))
    save_bias_features(file, args.out)
    print(file.text())
    for attribute in file.attributes:
        for line in ablation_lines(file, attribute):
            print(line)
        chart = args.out.with_name(f"{args.out.stem}-{attribute}.png")
        Image.fromarray(bias_features_chart(attribute, ranking_facts(file.attribute(attribute)))).save(chart)
        print(f"wrote {chart}")
    print(f"wrote {args.out}")
    return 0


def _trained(args: argparse.Namespace, features: FeatureSet, labels: LabelSet) -> AdpFile:
    """Train a linear predictor of all labelled attributes, so that side effects can be measured."""
    adp = train_adp(features, labels, "linear", args.epochs, args.seed, progress=progress_bar("training a linear predictor"))
    for verdict in adp.info["verdict"].values():
        print(verdict, flush=True)
    return adp
