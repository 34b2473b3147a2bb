"""``bench endurance``: a server that draws with guidance, steering and passes, run after run, and is cancelled at random.

Resident memory after every run: that of the last beside that of the 20th. Then runs are cancelled at random moments, each followed by a
run that is compared, bit for bit, with the same run of a fresh server; every fourth cancelled run is that same run in passes, and what it
had finished is gone on with. Every part has a server of its own; finished parts are kept in the folder.
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
"""Memory of the last run in units of that of the 20th, at most."""
MODEL = "portraits.safetensors"
REFERENCE, SEED = 4_700_000, 4_800_000


def endurance_graph(seed: int, mark: int = 0, passes: int = 0) -> dict[str, Any]:
    """Four portraits, steered and guided, in passes or at once. ``mark`` changes nothing that is drawn (the steer's mode does not use the
    amount), but the host takes graphs of different marks for different ones, and draws again."""

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
    """Hash of the samples that a run saved. RuntimeError where it failed."""
    if ended.error or ended.interrupted or "save" not in ended.outputs:
        raise RuntimeError(f"a run that was not cancelled failed: {ended.error or 'it saved nothing'}; see {server.log}.")
    saved = ended.outputs["save"]["latents"][0]
    path = server.base / "output" / saved["subfolder"] / saved["filename"]
    samples = read_safetensors(path)[0]["latent_tensor"]
    path.unlink()
    return hashlib.sha256(samples.contiguous().numpy().tobytes()).hexdigest()


def measure_memory(base: Path, runs: int) -> dict[str, Any]:
    """Resident memory after each of ``runs`` runs, every one with a seed of its own; every other one in passes."""
    held, seconds = [], []
    with HostServer(base) as server:
        for run in range(runs):
            started = time.monotonic()
            samples_digest(server, server.wait(server.queue(endurance_graph(SEED + run, 0, 2 * (run % 2)))))
            seconds.append(round(time.monotonic() - started, 3))
            held.append(round(server.resident_megabytes(), 1))
    return {"resident_mb": held, "run_seconds": seconds}


def measure_fresh(base: Path) -> dict[str, Any]:
    """Hashes of the reference runs (at once, in passes) on a server that has done nothing before, and how long one takes."""
    digests, seconds = [], 0.0
    for passes in (0, 2):
        with HostServer(base) as server:
            started = time.monotonic()
            digests.append(samples_digest(server, server.wait(server.queue(endurance_graph(REFERENCE, 0, passes)))))
            seconds = max(seconds, time.monotonic() - started)
    return {"digests": digests, "run_seconds": seconds}


def measure_cancelled(base: Path, cancels: int, digests: list[str]) -> dict[str, Any]:
    """Runs cancelled at random moments until ``cancels`` were so while they ran (those that had ended are ``late``); after each of
    them, a reference run that is to give the fresh server's bits.

    ``same``: how many reference runs gave the same bits. ``left``: passes that cancelled runs left for the reference to go on with.
    """
    draws, hit, tried, same, left, moments = random.Random(7), 0, 0, 0, 0, []
    with HostServer(base) as server:
        started = time.monotonic()
        server.wait(server.queue(endurance_graph(SEED - 1, 0, 2)))
        usual = time.monotonic() - started
        while hit < cancels:
            number, tried = tried, tried + 1
            if tried > 10 * cancels:
                raise RuntimeError(f"of {tried} runs only {hit} were cancelled in time: this machine is too busy to measure it.")
            passes = 2 * (number % 2)
            again = number % 4 == 3
            prompt = server.queue(endurance_graph(REFERENCE if again else SEED + number, number, passes))
            moment = draws.random() * usual
            time.sleep(moment)
            server.post("/interrupt", {})
            ended = server.wait(prompt)
            if ended.error:
                raise RuntimeError(f"a cancelled run ended with an error: {ended.error}; see {server.log}.")
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
    """Measure; ``folder`` keeps finished parts (default: a temporary one, which is removed)."""
    runs, cancels = runs or (QUICK_RUNS if quick else RUNS), cancels or (QUICK_CANCELS if quick else CANCELS)
    place = Path(tempfile.mkdtemp(prefix="equipoise-endurance-")) if folder is None else folder
    facts = {"host": host_version(), "model": MODEL}
    try:
        reference = load_or_make(place, "fresh", facts, lambda: measure_fresh(place / "server_fresh"))
        held = load_or_make(place, "memory", {**facts, "runs": runs}, lambda: measure_memory(place / "server_memory", runs))
        cut_facts, digests = {**facts, "cancels": cancels}, reference["digests"]
        cut = load_or_make(place, "cancelled", cut_facts, lambda: measure_cancelled(place / "server_cancel", cancels, digests))
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)
    first = min(FIRST, runs)
    megabytes = held["resident_mb"]
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
            "identical_after": "number of runs after a cancelled run whose samples equal those of a fresh server bit for bit; out of 'cancelled'",
        },
        "parts": {"fresh": reference, "memory": held, "cancelled": cut},
    }
