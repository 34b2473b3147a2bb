"""``equipoise train-adp``: a predictor from a recorded feature set and a label file."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..methods.feature_set import read_index
from ..methods.labels import for_entries, read_csv
from ..methods.train_adp import train_adp
from ..models.adp import KINDS, AdpFile, save_adp
from .console import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--features", type=Path, required=True, help="feature set, as 'equipoise sample --record DIR' writes it")
    parser.add_argument("--labels", type=Path, required=True, help="CSV: file,ATTRIBUTE or file,ATTRIBUTE:CLASS,...")
    parser.add_argument("--attribute", required=True, action="append", help="attribute to learn; may be given several times")
    parser.add_argument("--out", type=Path, required=True, help="safetensors file to write")
    parser.add_argument("--kind", choices=KINDS, default=KINDS[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--base-model", default="equipoise-portraits", help="name of the diffusion model, kept in the file")
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    entries = read_index(args.features)
    table = read_csv(args.labels, attributes=args.attribute)
    attributes, labels = table.attributes, for_entries(table, entries)
    predictor, accuracy = train_adp(
        args.features, labels, attributes, args.kind, epochs=args.epochs, seed=args.seed, progress=progress_bar("training the ADP")
    )
    info = {"images": len(entries), "accuracy_by_log_snr": accuracy}
    save_adp(AdpFile(predictor, {}, args.base_model, info), args.out)
    for attribute, rows in accuracy.items():
        print(f"{attribute}: held-out balanced accuracy " + ", ".join(f"{level:g}: {value:.3f}" for level, value in rows))
    print(f"wrote {args.out}")
    return 0
