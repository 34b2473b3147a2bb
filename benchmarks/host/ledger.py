"""``bench ledger``: measure single images from a real server, with and without a balance ledger.

Every queued prompt makes one guided image of the shipped unconditional model with a new seed, as the front end does. The ledger counts the
labeller's classes; the figures are hard counts by the judge, which takes no part. Without a ledger, the guidance is not connected to it,
and nothing else differs. Further parts: two servers that share one ledger, and servers that are killed. Finished parts are stored in the
folder.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ...methods.core.target_text import parse_target
from ...methods.ledger.ledger import SEEN, Ledger
from ...methods.ledger.ledger_images import reconcile
from ...metrics.fairness import joint_probabilities, measure
from ...shipped import weights
from ..core.host_server import HostServer
from ..core.stages import load_or_make

STEPS = 20
TARGETS = {"eyeglasses": "eyeglasses: yes=0.5, no=0.5", "skin_tone": "skin_tone: uniform"}
SEEDS = (881_000_001, 881_000_002, 881_000_003, 881_000_004)
"""Seeds of the queues. Each of them draws the seeds of its prompts."""
KILLS, ALONE = 20, 100
"""Number of kills, and runs of each of the two servers."""


@dataclass(frozen=True)
class Queue:
    """A queue of prompts with one image each."""

    target: str
    """Name in ``TARGETS``."""
    ledger: bool
    """Whether the ledger guides."""
    seed: int
    """Seed of the queue."""
    n: int
    """Number of prompts."""

    @property
    def name(self) -> str:
        """Return the queue's name for files."""
        return f"{self.target}-{'with' if self.ledger else 'without'}-{self.seed}-{self.n}"


def ledger_graph(target: str, seed: int, ledger: str, guided_by_it: bool = True, steps: int = STEPS) -> dict[str, Any]:
    """Make a graph of one guided image that a ledger records.

    ``guided_by_it``: whether the quotas come from the ledger.
    """

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": f"Equipoise{kind}", "inputs": inputs}

    attribute, shares = (part.strip() for part in TARGETS[target].split(":"))
    preset, written = ("uniform", "") if shares == "uniform" else ("weights", shares)
    sampler = {"seed": seed, "steps": steps, "cfg": 1.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
    guidance = {
        "mode": "quota", "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated",
        "assign": "auto", "repair": 0, "images_per_pass": 0, **({"ledger": ["ledger", 0]} if guided_by_it else {}),
    }  # fmt: skip
    drawn = {"positive": ["load", 2], "negative": ["load", 2], "latent_image": ["latent", 0], "adp": ["adp", 0], "target": ["target", 0]}
    counted = {"ledger": ["ledger", 0], "target": ["target", 0], "classifier": ["labeller", 0], "assigned": ["draw", 2]}
    return {
        "load": node("LoadUnconditionalDiffusion", model_name=weights.DIFFUSION.name),
        "latent": node("EmptyPixelLatent", model=["load", 0], width=0, height=0, batch_size=1),
        "adp": node("LoadADP", adp_name=weights.ADP.name),
        "target": node("TargetDistribution", attribute=attribute, preset=preset, weights=written, adp=["adp", 0]),
        "labeller": node("LoadAttributeClassifier", classifier_name=weights.LABELLER.name),
        "ledger": node("BalanceLedger", name=ledger, group=""),
        "draw": node("DistributionGuidanceKSampler", model=["load", 0], **drawn, **sampler, **guidance),
        "image": {"class_type": "VAEDecode", "inputs": {"samples": ["draw", 0], "vae": ["load", 1]}},
        "record": node("RecordAttributes", images=["image", 0], **counted),
    }


class LedgerBench:
    """Hold the judge and a server, which starts when it is needed."""

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        self.place, self.judge = folder, weights.classifier(weights.JUDGE)
        self._server: HostServer | None = None

    @property
    def server(self) -> HostServer:
        """Return the server for queues."""
        if self._server is None:
            self._server = HostServer(self.place / "one")
            self._server.start()
        return self._server

    def close(self) -> None:
        """Stop the server."""
        if self._server is not None:
            self._server.stop()

    def queue(self, q: Queue) -> dict[str, Any]:
        """Run a queue and judge its images. An interrupted queue starts again."""
        server, draw = self.server, random.Random(q.seed)
        ledger, folder = ledger_file(server.user, q.name), ledger_pictures(server.output, q.name)
        forget(ledger, folder)
        for _ in range(q.n):
            server.finish(server.queue(ledger_graph(q.target, draw.getrandbits(53), q.name, q.ledger)))
        rows = Ledger(ledger).rows()
        if len(rows) != q.n or any(r["state"] != SEEN for r in rows):
            raise RuntimeError(f"{q.n} prompts were queued, but the ledger holds {len(rows)} rows. Remove the folder and run it again.")
        return {"n": q.n, **self.judged(q.target, folder, [r["file"] for r in rows]), **ledger_counts(rows)}

    @torch.inference_mode()
    def judged(self, target: str, folder: Path, files: Sequence[str]) -> dict[str, Any]:
        """Measure FD of pictures, in the order of their making, by the judge's hard counts."""
        images = np.stack([np.asarray(Image.open(folder / f).convert("RGB")) for f in files])
        read = self.judge.probabilities(torch.from_numpy(images).movedim(-1, 1).float() / 255)
        aimed = parse_target(TARGETS[target], self.judge.attributes)
        report = measure(joint_probabilities({a: read[a] for a in aimed.attributes}), aimed.names, aimed.shares)
        return {"fd": report.fd, "counts": dict(zip(aimed.names, report.counts, strict=True)), "noise_floor": report.noise_floor}

    def two(self, target: str, runs: int) -> dict[str, Any]:
        """Run two servers on one ledger at the same time, each with its own queue."""
        user, output, name = self.place / "shared" / "user", self.place / "shared" / "output", f"two-{target}-{runs}"
        forget(ledger_file(user, name), ledger_pictures(output, name))
        draw, ids = random.Random(881_000_100), [[], []]
        with HostServer(self.place / "a", user, output) as a, HostServer(self.place / "b", user, output) as b:
            for _ in range(runs):
                for server, mine in ((a, ids[0]), (b, ids[1])):
                    mine.append(server.queue(ledger_graph(target, draw.getrandbits(53), name)))
            for server, mine in ((a, ids[0]), (b, ids[1])):
                for prompt_id in mine:
                    server.finish(prompt_id, 3600)
        rows, folder = Ledger(ledger_file(user, name)).rows(), ledger_pictures(output, name)
        met = [r["run"] for r in rows if r["state"] == SEEN]
        mixed = [("a" if r["run"] in set(ids[0]) else "b") for r in rows]
        return {
            "runs": 2 * runs,
            "rows_lost": len(set(ids[0]) | set(ids[1])) - len(set(met)),
            "rows_double": len(rows) - len({r["run"] for r in rows}),
            "files": len(list(folder.glob("*.png"))),
            "changes_of_turn": sum(x != y for x, y in zip(mixed, mixed[1:], strict=False)),
            **self.judged(target, folder, [r["file"] for r in rows]),
            **ledger_counts(rows),
        }

    def killed(self, target: str, kills: int) -> dict[str, Any]:
        """Kill a server at random moments, and check the ledger when it is opened again."""
        base, name, draw = self.place / "killed", f"killed-{target}", random.Random(881_000_200)
        server = HostServer(base)
        path, folder, moments = ledger_file(server.user, name), ledger_pictures(server.output, name), []
        forget(path, folder)
        for _ in range(kills):
            server.start()
            try:
                for _ in range(40):
                    last = server.queue(ledger_graph(target, draw.getrandbits(53), name))
                first = len(list(folder.glob("*.png"))) if folder.is_dir() else 0
                until = time.monotonic() + 120
                while not folder.is_dir() or len(list(folder.glob("*.png"))) == first:  # the queue is at work
                    if time.monotonic() > until:
                        raise TimeoutError(f"No image came within 120 s. The last prompt was {last}; read {server.log}.")
                    time.sleep(0.02)
                time.sleep(draw.uniform(0, 3))
            finally:
                server.kill()
            ledger = Ledger(path, "bench", gone=lambda _: True)  # every server that ever wrote is dead
            before = {r["file"] for r in ledger.rows() if r["file"]}
            halves = len(list(folder.glob(".*.partial")))
            ledger.check()
            released = ledger.tidy()
            adopted = reconcile(ledger, folder)
            rows, files = ledger.rows(), {p.name for p in folder.glob("*.png")}
            moments.append(
                {
                    "pictures": len(files), "rows": len(rows), "orphans": len(files - before), "found": adopted, "released": released,
                    "halves": halves, "equal": {r["file"] for r in rows} == files and len(rows) == len(files),
                }
            )  # fmt: skip
        return {"kills": kills, "opened": len(moments), "equal": sum(m["equal"] for m in moments), "moments": moments}


def ledger_file(user: Path, name: str) -> Path:
    """Return the path of a server's ledger."""
    return user / "equipoise" / "ledgers" / f"{name}.sqlite"


def ledger_pictures(output: Path, name: str) -> Path:
    """Return the folder of a ledger's pictures."""
    return output / "equipoise" / "ledgers" / name


def forget(ledger: Path, folder: Path) -> None:
    """Delete a ledger and its pictures."""
    for path in (ledger, *ledger.parent.glob(f"{ledger.name}-*")):
        path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def ledger_counts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count the ledger's own records: classes assigned, classes seen, and hits."""

    def count(what: str) -> dict[str, int]:
        names = sorted({r[what] for r in rows if r[what] is not None})
        return {n: sum(r[what] == n for r in rows) for n in names}

    return {"assigned": count("assigned"), "seen": count("seen"), "hits": sum(r["assigned"] == r["seen"] for r in rows)}


def files_digest() -> str:
    """Return a digest of the files that images and counts come from."""
    files = (weights.DIFFUSION, weights.ADP, weights.LABELLER, weights.JUDGE)
    return hashlib.sha256(b"".join(hashlib.sha256(f.read_bytes()).digest() for f in files)).hexdigest()[:16]


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run all parts. ``folder``: where parts are stored (default: a temporary folder)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-ledger-") as temporary:
            return run(quick, Path(temporary))
    folder = folder.resolve() / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    seeds, n = (SEEDS[:1], 40) if quick else (SEEDS, 256)
    runs, kills = (10, 2) if quick else (ALONE, KILLS)
    bench, figures = LedgerBench(folder / "servers"), {}
    try:
        for target in TARGETS:
            for with_ledger in (True, False):
                for seed in seeds:
                    q = Queue(target, with_ledger, seed, n)
                    facts = {**asdict(q), "files": files_digest(), "steps": STEPS}
                    figures[q] = load_or_make(folder, q.name, facts, lambda q=q: bench.queue(q))
    finally:
        bench.close()
    facts = {"files": files_digest(), "steps": STEPS}
    two = {t: load_or_make(folder, f"two-{t}", {**facts, "runs": runs}, lambda t=t: bench.two(t, runs)) for t in TARGETS}
    killed = load_or_make(folder, "killed", {**facts, "kills": kills}, lambda: bench.killed("eyeglasses", kills))
    return ledger_result(figures, two, killed, n)


def ledger_result(figures: dict[Queue, dict[str, Any]], two: dict[str, Any], killed: dict[str, Any], n: int) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them.

    FD is averaged over the seeds of a target.
    """

    def mean(target: str, ledger: bool) -> float:
        return float(np.mean([f["fd"] for q, f in figures.items() if (q.target, q.ledger) == (target, ledger)]))

    return {
        "batch": 1,
        "n": n,
        "fd_with": {t: mean(t, True) for t in TARGETS},
        "fd_without": {t: mean(t, False) for t in TARGETS},
        "rows_lost": sum(t["rows_lost"] for t in two.values()),
        "rows_double": sum(t["rows_double"] for t in two.values()),
        "two_processes": two,
        "killed": killed,
        "queues": {q.name: f for q, f in figures.items()},
        "targets": TARGETS,
        "seeds": sorted({q.seed for q in figures}),
        "notes": {
            "fd": "by the judge, mean over the seeds, each a queue of n prompts with one image; the ledger counts the labeller's classes",
            "fd_without": "the same seeds; the seed alone decides the quotas (systematic sampling), no ledger is connected to the guidance",
            "killed": "equal: after the ledger was opened again, each picture on disk has exactly one row; orphans: pictures without a row",
        },
    }
