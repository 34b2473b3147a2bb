"""``equipoise sample``: sample a diffusion model of the test bed, guided or not, recorded or not, without a host."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..methods.core.target_text import parse_target
from ..methods.data.feature_set import SPATIAL, FeatureSetWriter
from ..methods.guidance.run import MODES, GuidanceRun, GuidanceSettings
from ..methods.labels.labels import LabelSet, write_csv
from ..models.files import read_metadata
from ..models.sites import MIDDLE
from ..shipped import weights
from .console import progress_bar
from .sampling import STEPS, RecordedSite, recorded_as, sample


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "--model", type=Path, default=weights.DIFFUSION, help="diffusion model of the test bed (default: the unconditional one)"
    )
    parser.add_argument("--n", type=int, required=True, help="number of images")
    parser.add_argument("--batch", type=int, default=16, help="images per batch: the batch is what follows the target")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first image; image i has seed + i")
    parser.add_argument("--steps", type=int, default=STEPS, help="DDIM steps")
    parser.add_argument("--profession", type=int, help="class label, for the conditional model")
    parser.add_argument("--adp", type=Path, help="attribute distribution predictor; needs --target")
    parser.add_argument("--target", help="for instance 'eyeglasses: yes=0.5,no=0.5'; needs --adp")
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--record", type=Path, help="write a feature set here; where the map is larger than 4x4, whole maps are kept too")
    parser.add_argument("--site", default=MIDDLE, help=f"where features are taken: {MIDDLE} (default), or output.N for up block N")
    parser.add_argument("--labels", type=Path, help="write the labeller's probabilities of every image as CSV")
    parser.add_argument("--out", type=Path, required=True, help="folder for PNG files and samples.jsonl; must not hold samples yet")


def run(args: argparse.Namespace) -> int:
    """Sample images, record and label them on request."""
    if (args.adp is None) != (args.target is None):
        raise ValueError("--adp and --target belong together: give both, or neither for plain samples.")
    index = args.out / "samples.jsonl"
    if index.exists():
        raise ValueError(f"'{args.out}' already holds samples; nothing is overwritten: give another --out.")
    args.out.mkdir(parents=True, exist_ok=True)
    net = weights.diffusion(args.model)
    if (net.num_classes is not None) != (args.profession is not None):
        raise ValueError("a class-conditional model needs --profession, and an unconditional one takes none.")
    make_run = None
    target = None
    if args.adp is not None:
        adp = weights.adp(args.adp)
        target = parse_target(args.target, adp.attributes)
        for note in target.notes:
            print(note)

        def make_run(number: int, first_seed: int) -> GuidanceRun:
            return GuidanceRun(adp, GuidanceSettings(target, mode=args.mode, strength=args.strength, seed=first_seed))

    writer = None
    if args.record:
        base_model = read_metadata(args.model).get("base_model", "")
        writer = FeatureSetWriter(args.record, recorded_as(net, base_model, args.steps, args.site))
    labeller = weights.classifier() if args.labels else None
    files, read = [], []
    bar = progress_bar("sampling")
    maps = writer is not None and writer.meta["kind"] == SPATIAL
    record = RecordedSite(args.site, maps) if writer is not None else None
    batches = [range(s, min(s + args.batch, args.seed + args.n)) for s in range(args.seed, args.seed + args.n, args.batch)]
    for number, seeds in enumerate(batches):
        result = sample(net, list(seeds), args.batch, args.steps, make_run, args.profession, record)
        names = [f"{seed:08d}.png" for seed in seeds]
        pixels = (result.images.permute(0, 2, 3, 1) * 255).round().byte().numpy()
        for name, picture in zip(names, pixels, strict=True):
            Image.fromarray(np.ascontiguousarray(picture)).save(args.out / name)
        if writer:
            spatial = (result.maps, result.level) if maps else None
            writer.add(result.features, result.level, names, list(seeds), [""] * len(names), spatial=spatial)
        if labeller:
            read.append(labeller.probabilities(result.images))
        with index.open("a", encoding="utf-8") as stream:
            for i, (name, seed) in enumerate(zip(names, seeds, strict=True)):
                cell = None if result.cells is None or result.cells[i] < 0 else target.names[int(result.cells[i])]
                stream.write(json.dumps({"file": name, "seed": seed, "assigned": cell}) + "\n")
        files += names
        bar(number + 1, len(batches), {})
    if labeller:
        joined = {a: torch.cat([r[a] for r in read]) for a in labeller.attributes}
        write_csv(LabelSet(dict(labeller.attributes), tuple(files), joined), args.labels)
    return 0
