"""``bench sae``: compare our autoencoder with other libraries and measure its use.

Each part is stored in the folder and not repeated:

- portraits of the shipped unconditional model, recorded at the site and labelled by the shipped labeller, without ComfyUI;
- our training and the libraries' on the same tokens (:mod:`.sae_peer`);
- the same images with h replaced by its reconstruction, through the host's sampler, read by the judge;
- the speed and error of attribution (:mod:`.sae_attribution`).
"""

from __future__ import annotations

import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...cli.publish import host_version
from ...factory.host_process import boot_host
from ...methods.adp.train import train_adp
from ...methods.data.feature_set import FeatureSet, open_feature_set
from ...methods.labels.labels import LabelSet, read_csv
from ...methods.sae.training import SaeSettings
from ...models.sae import SaeFile, load_sae
from ...shipped import weights
from ..adp.clothing import sample_portraits
from ..core.stages import load_or_make
from .sae_attribution import SAMPLES, attribution_figures
from .sae_peer import DEFAULTS, compare_trainers, versions

SITE = "output.1"
STEERED = ("eyeglasses", "hair", "skin_tone")
SEED, SPLICE_SEED = 880_000_000, 882_000_000
"""First seeds of the recorded images and of the spliced images. No shipped file was trained on them."""
BATCH, STEPS = 16, 20
OURS = "ours.safetensors"


@dataclass(frozen=True)
class SaeSizes:
    """Sizes of a run."""

    images: int = 2048
    """Recorded images."""
    spliced: int = 384
    """Images sampled with and without splicing."""
    steps: int = SaeSettings().steps
    """Steps of each training."""
    samples: int = SAMPLES
    """Samples that are attributed."""

    @property
    def settings(self) -> SaeSettings:
        """Return the training settings."""
        return SaeSettings(latents=1536, k=48, steps=self.steps)


QUICK = SaeSizes(images=512, spliced=192, steps=600)


def run(quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run all parts. ``folder``: where parts are stored (default: a temporary folder)."""
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="equipoise-bench-sae-") as temporary:
            return run(quick, Path(temporary))
    folder = folder / ("quick" if quick else "full")
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    return measure_parts(folder, QUICK if quick else SaeSizes(), quick)


def measure_parts(folder: Path, sizes: SaeSizes, quick: bool) -> dict[str, Any]:
    """Measure all parts and return the JSON object."""
    features, labels = record_training_set(folder, sizes.images)
    training = train_all(folder, features, sizes.settings)
    sae = load_sae(folder / OURS)
    facts = {"sae": sae.digest, "seed": SPLICE_SEED, "n": sizes.spliced}
    spliced = load_or_make(folder, "splicing", facts, lambda: measure_splicing(sae, sizes.spliced)) if host_version() else None
    facts = {"sae": sae.digest, "seed": SEED, "images": sizes.images, "samples": sizes.samples}
    attribution = load_or_make(folder, "attribution", facts, lambda: measure_attribution(features, labels, sae, sizes.samples))
    return sae_result(training, spliced, attribution, sizes, quick)


def record_training_set(folder: Path, images: int) -> tuple[FeatureSet, LabelSet]:
    """Sample plain portraits, record h at every step, and read the labels."""
    features, labels = folder / "portraits-features", folder / "portraits.csv"
    sample_portraits(folder, "portraits", images, SEED, "--site", SITE, "--record", str(features), "--labels", str(labels))
    return open_feature_set(features), read_csv(labels)


def train_all(folder: Path, features: FeatureSet, settings: SaeSettings) -> dict[str, Any]:
    """Train ours and every installed library; our autoencoder stays in the folder."""
    if not (folder / OURS).is_file():
        (folder / "training.json").unlink(missing_ok=True)
    peers = versions()
    facts = {"settings": asdict(settings), "seed": SEED, "images": len(features.entries), "peers": peers}
    compare = compare_in_child if peers else compare_on_one_thread
    return load_or_make(folder, "training", facts, lambda: compare(folder, features, settings))


def compare_in_child(folder: Path, features: FeatureSet, settings: SaeSettings) -> dict[str, Any]:
    """Run the comparison in a child process.

    One library adds methods to all Python classes, and ComfyUI cannot start after that.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(compare_on_one_thread, folder, features, settings).result()


def compare_on_one_thread(folder: Path, features: FeatureSet, settings: SaeSettings) -> dict[str, Any]:
    """Run the comparison on one thread, so that no trainer gains by parallel work."""
    torch.set_num_threads(1)
    return compare_trainers(folder, features, settings)


@torch.inference_mode()
def measure_splicing(sae: SaeFile, images: int) -> dict[str, Any]:
    """Measure how often the judge's class survives when h is replaced by its reconstruction.

    The plain and the spliced images have the same seeds and noise; h is replaced in every call.
    """
    boot_host()
    torch.set_num_threads(1)
    from ...host.core.sampling import SamplerSettings, ksample
    from ...host.small_models.adm_info import conditioning
    from ...host.small_models.adm_model import empty_latent, info_of, load_adm
    from ...host.small_models.pixel_vae import PixelVae
    from .splice import apply_splice

    judge, vae, model = weights.classifier(weights.JUDGE), PixelVae(2), load_adm(weights.DIFFUSION)
    cond = conditioning(info_of(model), None)

    def seen(of: Any) -> tuple[dict[str, Tensor], Tensor]:
        pictures = []
        for batch in range(images // BATCH):
            settings = SamplerSettings(SPLICE_SEED + batch, STEPS, 1.0, "ddim", "normal")
            out = ksample(of, settings, cond, cond, empty_latent(of, 0, 0, BATCH))
            pictures.append(vae.decode(out["samples"]).movedim(-1, 1))
        together = torch.cat(pictures)
        return {a: p.argmax(-1) for a, p in judge.probabilities(together).items()}, judge.embed(together)

    (before, plain), (after, spliced) = seen(model), seen(apply_splice(model, sae))
    alike = torch.nn.functional.cosine_similarity(plain.float(), spliced.float(), dim=-1)
    agreement = {a: float((before[a] == after[a]).float().mean()) for a in before}
    return {"agreement": agreement, "similarity": float(alike.mean()), "n": len(plain)}


def measure_attribution(features: FeatureSet, labels: LabelSet, sae: SaeFile, samples: int) -> dict[str, Any]:
    """Train a linear predictor on the set and measure its attribution."""
    reader = train_adp(features, labels, kind="linear").predictor
    assert reader is not None
    return attribution_figures(features, labels, sae, reader, STEERED, samples)


def sae_result(
    training: dict[str, Any], spliced: dict[str, Any] | None, attribution: dict[str, Any], sizes: SaeSizes, quick: bool
) -> dict[str, Any]:
    """Build the JSON object: the contract's keys and all figures behind them."""
    notes = {
        "tokens_per_second": f"wall-clock, {training['peer_settings']['threads']} thread(s), trainers take turns; without reading the set",
        "peer": "the library and setting under 'peers' with the lowest FVU",
        "fvu": "on the same held-out images for all; the same code measures the libraries' weights",
        "attribution_speedup": f"seconds of autograd at 10 points / of the closed form, {attribution['samples']} samples; lowest attribute",
        "attribution_error": "largest relative difference from autograd at 256 points, by sample",
    }
    if training["peer"] is None:
        notes["peer"] = f"null: {'; '.join(training['peer_notes'])}"
    elif training["peer_notes"]:
        notes["peers"] = "; ".join(training["peer_notes"])
    if spliced is None:
        notes["spliced_agreement"] = "null: COMFYUI_PATH holds no ComfyUI"
    else:
        notes["spliced_agreement"] = f"share of {spliced['n']} images that keep the judge's class at the same seeds; lowest attribute"
    if quick:
        notes["quick"] = f"{sizes.images} images and {sizes.steps} steps; indicative"
    at_defaults = {name: f for name, f in training["peers"].items() if name.endswith(f"({DEFAULTS})")}
    best = min(at_defaults, key=lambda name: at_defaults[name]["fvu"], default=None)
    notes["peer_at_its_defaults"] = "libraries with their own defaults; the others under 'peers' use our learning rate and schedule"
    parts = [p for p in (training, spliced, attribution) if p]
    commits = {str(p["commit"])[:9] for p in parts}
    if len(commits) > 1:
        notes["commit"] = f"parts were measured at commits {', '.join(sorted(commits))}"
    return {
        **{k: training[k] for k in ("ours", "peer", "peer_name")},
        "peer_at_its_defaults": {"name": best, **at_defaults[best]} if best else None,
        "spliced_agreement": min(spliced["agreement"].values()) if spliced else None,
        **{k: attribution[k] for k in ("attribution_speedup", "attribution_error", "completeness_error")},
        "training": training,
        "splicing": spliced,
        "attribution": attribution,
        "sizes": vars(sizes),
        "seeds": [SEED, SPLICE_SEED],
        "notes": notes,
    }
