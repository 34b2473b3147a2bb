"""``bench endurance``: run a server many times with guidance, steering and passes, and cancel runs.

The first part compares resident memory after the last run with that after run 20.

The second part cancels runs at random moments. After each cancelled run it compares one run, bit for bit, with the same run on a fresh
server. Every fourth cancelled run is that same run in passes, so the next run resumes its finished passes.

Every part has its own server. Finished parts are stored in the folder.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from ...cli.publish import host_version
from ...models.files import read_safetensors
from ..core.host_server import Ended, HostServer
from ..core.stages import load_or_make

RUNS, CANCELS, FIRST = 200, 30, 20
QUICK_RUNS, QUICK_CANCELS = 60, 8
LIMIT = 1.02
"""Largest allowed ratio of memory after the last run to memory after run 20."""
MODEL = "portraits.safetensors"
REFERENCE, SEED = 4_700_000, 4_800_000


def endurance_graph(seed: int, mark: int = 0, passes: int = 0) -> dict[str, Any]:
    """Make a graph of four portraits, steered and guided, in passes or at once.

    ``mark`` does not change the images, because the steering mode ignores the amount. But ComfyUI takes graphs with different marks for
    different graphs, so it samples again.
    """

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    steer = {
        "attribute": "skin_tone", "class_name": "dark", "strength": 1.0, "mode": "profile", "profile": "calibrated", "features": 0,
        "amount": round(mark / 10, 1), "rows": "cond", "start_percent": 0.0, "end_percent": 1.0, "rule": "one pass", "assign": "auto",
        "seed": seed,
    }  # fmt: skip
    sampler = {
        "seed": seed, "steps": 6, "cfg": 1.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, "mode": "quota",
        "strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "rows": "cond", "direction": "calibrated", "assign": "auto", "repair": 0,
        "images_per_pass": passes,
    }  # fmt: skip
    return {
        "load": node("EquipoiseLoadUnconditionalDiffusion", model_name=MODEL),
        "latent": node("EquipoiseEmptyPixelLatent", model=["load", 0], width=0, height=0, batch_size=4),
        "adp": node("EquipoiseLoadADP", adp_name=MODEL),
        "sae": node("EquipoiseLoadSAE", sae_name=MODEL),
        "bias": node("EquipoiseLoadBiasFeatures", bias_features_name=MODEL),
        "target": node("EquipoiseTargetDistribution", attribute="eyeglasses", preset="uniform", weights="", adp=["adp", 0]),
        "steer": node("EquipoiseBiasFeatureSteer", model=["load", 0], sae=["sae", 0], bias_features=["bias", 0], **steer),
        "draw": node(
            "EquipoiseDistributionGuidanceKSampler",
            model=["steer", 0], positive=["load", 2], negative=["load", 2], latent_image=["latent", 0], adp=["adp", 0],
            target=["target", 0], **sampler,
        ),  # fmt: skip
        "image": node("VAEDecode", samples=["draw", 0], vae=["load", 1]),
        "show": node("PreviewImage", images=["image", 0]),
        "save": node("SaveLatent", samples=["draw", 0], filename_prefix="endurance/latent"),
    }


def samples_digest(server: HostServer, ended: Ended) -> str:
    """Hash the samples that a run saved. Raises RuntimeError if the run failed."""
    if ended.error or ended.interrupted or "save" not in ended.outputs:
        raise RuntimeError(f"A run that was not cancelled failed: {ended.error or 'it saved nothing'}. Read {server.log}.")
    saved = ended.outputs["save"]["latents"][0]
    path = server.base / "output" / saved["subfolder"] / saved["filename"]
    samples = read_safetensors(path)[0]["latent_tensor"]
    path.unlink()
    return hashlib.sha256(samples.contiguous().numpy().tobytes()).hexdigest()


def measure_memory(base: Path, runs: int) -> dict[str, Any]:
    """Measure resident memory after each run.

    Every run has its own seed, and every second run uses passes.
    """
    memory, seconds = [], []
    with HostServer(base) as server:
        for run in range(runs):
            started = time.monotonic()
            samples_digest(server, server.wait(server.queue(endurance_graph(SEED + run, 0, 2 * (run % 2)))))
            seconds.append(round(time.monotonic() - started, 3))
            memory.append(round(server.resident_megabytes(), 1))
    return {"resident_mb": memory, "run_seconds": seconds}


def measure_fresh(base: Path) -> dict[str, Any]:
    """Hash the reference runs on fresh servers and time them.

    There are two: one at once, one in passes.
    """
    digests, seconds = [], 0.0
    for passes in (0, 2):
        with HostServer(base) as server:
            started = time.monotonic()
            digests.append(samples_digest(server, server.wait(server.queue(endurance_graph(REFERENCE, 0, passes)))))
            seconds = max(seconds, time.monotonic() - started)
    return {"digests": digests, "run_seconds": seconds}


def measure_cancelled(base: Path, cancels: int, digests: list[str]) -> dict[str, Any]:
    """Cancel runs at random moments, and compare a reference run after each of them.

    It ends after ``cancels`` runs were cancelled while they ran; ``late`` counts runs that had ended before. ``same``: reference runs that
    gave the fresh server's bits. ``left``: finished passes of cancelled runs that the reference run could resume.
    """
    draws, hit, tried, same, left, moments = random.Random(7), 0, 0, 0, 0, []
    with HostServer(base) as server:
        started = time.monotonic()
        server.wait(server.queue(endurance_graph(SEED - 1, 0, 2)))
        usual = time.monotonic() - started
        while hit < cancels:
            number, tried = tried, tried + 1
            if tried > 10 * cancels:
                raise RuntimeError(f"Only {hit} of {tried} runs were cancelled in time: this machine is too busy. Run it again later.")
            passes = 2 * (number % 2)
            again = number % 4 == 3
            prompt = server.queue(endurance_graph(REFERENCE if again else SEED + number, number, passes))
            moment = draws.random() * usual
            time.sleep(moment)
            server.post("/interrupt", {})
            ended = server.wait(prompt)
            if ended.error:
                raise RuntimeError(f"A cancelled run ended with an error: {ended.error}. Read {server.log}.")
            if not ended.interrupted:
                continue
            hit += 1
            unfinished = base / "output" / "equipoise" / "unfinished"
            left += len(list(unfinished.glob("*/*.latent"))) if again else 0
            moments.append(round(moment, 3))
            started = time.monotonic()
            ended = server.wait(server.queue(endurance_graph(REFERENCE, number, passes)))
            same += samples_digest(server, ended) == digests[passes // 2]
            usual = time.monotonic() - started
    return {"cancelled": hit, "late": tried - hit, "same": same, "left": left, "moments": moments}


def run(quick: bool = False, folder: Path | None = None, runs: int | None = None, cancels: int | None = None) -> dict[str, Any]:
    """Measure all parts. ``folder`` stores finished parts (default: a temporary folder)."""
    runs, cancels = runs or (QUICK_RUNS if quick else RUNS), cancels or (QUICK_CANCELS if quick else CANCELS)
    work_folder = Path(tempfile.mkdtemp(prefix="equipoise-endurance-")) if folder is None else folder
    facts = {"host": host_version(), "model": MODEL}
    try:
        reference = load_or_make(work_folder, "fresh", facts, lambda: measure_fresh(work_folder / "server_fresh"))
        memory = load_or_make(work_folder, "memory", {**facts, "runs": runs}, lambda: measure_memory(work_folder / "server_memory", runs))
        cut_facts, digests = {**facts, "cancels": cancels}, reference["digests"]
        cut = load_or_make(work_folder, "cancelled", cut_facts, lambda: measure_cancelled(work_folder / "server_cancel", cancels, digests))
    finally:
        if folder is None:
            shutil.rmtree(work_folder, ignore_errors=True)
    first = min(FIRST, runs)
    megabytes = memory["resident_mb"]
    return {
        "runs": runs,
        "resident_mb_first": megabytes[first - 1],
        "resident_mb_last": megabytes[-1],
        "resident_ratio": megabytes[-1] / megabytes[first - 1],
        "limit": LIMIT,
        "cancelled": cut["cancelled"],
        "ended_before": cut["late"],
        "identical_after": cut["same"],
        "passes_gone_on_with": cut["left"],
        "seeds": [SEED, SEED + runs - 1],
        "notes": {
            "resident_ratio": f"resident memory of the server's process after the last run / after run {first}",
            "identical_after": "runs after a cancelled run whose samples equal those of a fresh server bit for bit; out of 'cancelled'",
        },
        "parts": {"fresh": reference, "memory": memory, "cancelled": cut},
    }
