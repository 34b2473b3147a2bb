"""The command line: ``equipoise COMMAND ...`` where the package is installed, ``python dev.py COMMAND ...`` in a clone."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALL_COMMANDS: dict[str, tuple[str, str]] = {
    "demo": (".demo", "sample the shipped model before and after guidance, and judge both"),
    "sample": (".cmd_sample", "sample a diffusion model of the test bed, guided or not, recorded or not"),
    "train-adp": (".cmd_train_adp", "train a predictor from a recorded feature set and a label file"),
    "train-sae": (".cmd_train_sae", "train a sparse autoencoder on a recorded feature set; also under torchrun"),
    "find-bias-features": (".cmd_find_bias_features", "find the features of an autoencoder that carry an attribute"),
    "neuron-path": (".cmd_neuron_path", "find the neurons of a vision transformer, layer by layer, that decide a label"),
    "train-portraits": ("..factory.cmd_train_portraits", "make the models that ship with the pack"),
    "convert": (".convert", "turn a pickled checkpoint (.pt, .pth, .ckpt) into safetensors"),
    "bench": (".bench", "run a benchmark and write its figures as JSON"),
}
"""Command -> (module, one line of help). The module has ``add_arguments(parser)`` and ``run(args) -> exit code``."""
NEEDED_FOLDERS = {"train-portraits": "factory", "bench": "benchmarks"}
"""Command -> folder that it needs and that an installed pack does not have."""
COMMANDS = {name: entry for name, entry in ALL_COMMANDS.items() if (ROOT / NEEDED_FOLDERS.get(name, "cli")).is_dir()}
"""Commands of this copy."""


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """Build the parser.

    Imports only the module of the ``chosen`` command, so that --help is quick.
    """
    about = "Steer what a diffusion model makes of people, and measure what came out."
    parser = argparse.ArgumentParser(prog="equipoise", description=about)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from, not only what it says")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name == chosen:
            implementation = importlib.import_module(module, __package__)
            implementation.add_arguments(command)
            command.set_defaults(run=implementation.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code.

    Wrong input (ValueError, OSError) gives one sentence on standard error and exit code 1.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = next((w for w in words if not w.startswith("-")), None)
    args = build_parser(chosen).parse_args(words)
    try:
        return int(args.run(args) or 0)
    except (ValueError, OSError) as error:
        if args.traceback:
            raise
        print(f"equipoise {args.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130
