"""``bench NAME``: run a benchmark of ``benchmarks/`` and publish its figures."""

from __future__ import annotations

import argparse
import importlib
import inspect
import time
from pathlib import Path
from types import ModuleType

from .publish import publish, with_record

BENCHMARKS_FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


def benchmark_files() -> dict[str, Path]:
    """Find the modules below ``benchmarks/`` that define ``run``.

    By the name a user types; none is imported.
    """
    modules = [f for f in sorted(BENCHMARKS_FOLDER.rglob("*.py")) if not f.name.startswith("_")]
    files = [f for f in modules if "\ndef run(" in f.read_text(encoding="utf-8")]
    return {f.stem.replace("_", "-"): f for f in files}


def available() -> list[str]:
    """List the names of the benchmarks."""
    return sorted(benchmark_files())


def load(name: str) -> ModuleType:
    """Import a benchmark's module. Raises ValueError, with the names that exist, for an unknown name."""
    files = benchmark_files()
    file = files.get(name.replace("_", "-"))
    if file is None:
        raise ValueError(f"there is no benchmark '{name}': choose one of {', '.join(sorted(files)) or '(none is installed)'}.")
    return importlib.import_module(".".join(("..benchmarks", *file.relative_to(BENCHMARKS_FOLDER).with_suffix("").parts)), __package__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("name", metavar="NAME", help=f"one of: {', '.join(available()) or 'none is installed'}")
    parser.add_argument("--quick", action="store_true", help="a smaller run of at most ten minutes on 2 cores; its figures are indicative")
    parser.add_argument("--json", metavar="FILE", help="write the figures to this file as well")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="keep finished parts here and resume from them (some benchmarks)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes, at most 2 (some benchmarks)")


def run(args: argparse.Namespace) -> int:
    """Run the benchmark and print one JSON object as the last line.

    Where and how it ran is added.
    """
    module, started = load(args.name), time.monotonic()
    options = {k: v for k, v in (("folder", args.folder), ("workers", args.workers)) if v is not None}
    unknown = [k for k in options if k not in inspect.signature(module.run).parameters]
    if unknown:
        raise ValueError(f"the benchmark '{args.name}' takes no --{unknown[0]}: leave it out.")
    figures = {"benchmark": args.name.replace("_", "-"), "quick": args.quick, **module.run(quick=args.quick, **options)}
    publish(with_record(figures, started), args.json)
    return 0
