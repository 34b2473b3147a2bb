"""Bias-feature steering as a patch of a host MODEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
from torch import Tensor

from ...benchmarks.bias_features.splice import SpliceRun
from ...methods.bias_features.run import SteeringRun, SteerSettings
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures, check_sae
from ...models.sae import SaeFile
from ..core.managed_networks import managed_adp, managed_sae
from ..core.patch import KEY, Handle, patch_model, without_run
from ..core.sites import check_fit, check_made_for
from ..ledger.ledgers import LedgerHandle


def apply_steering(
    model: Any,
    sae: SaeFile,
    bias: BiasFeatures,
    settings: SteerSettings,
    adp: AdpFile | None = None,
    asyrp: bool = False,
    on_finish: Callable[[SteeringRun], None] | None = None,
    ledger: LedgerHandle | None = None,
) -> Any:
    """A clone of MODEL that is steered; the original is left as it was. ``on_finish`` gets the run's state when sampling ended well.
    ``ledger``: see :func:`.batch_patch.patch_model`.

    ``asyrp``: the paper's two-branch rule (:func:`two_branch_rule`), with a second U-Net pass per step. With strength 0 or an empty window
    the clone carries no patch at all. Raises ValueError where autoencoder, bias features, ADP and model do not belong together.
    """
    check_sae_fit(model, sae)
    check_sae(bias, sae)
    if adp is not None:
        check_fit(model, adp)
    SteeringRun(sae, bias, settings, adp)  # refuses what these files do not hold now, not in the middle of a queue
    if settings.strength == 0 or settings.sigma_start < settings.sigma_end:
        return model.clone()
    (used, networks), (reader, others) = managed_sae(sae), managed_adp(adp)
    clone, handle = patch_model(model, lambda: SteeringRun(used, bias, settings, reader), on_finish, [*networks, *others], ledger)
    if asyrp:
        clone.set_model_sampler_post_cfg_function(two_branch_rule(handle))
    return clone


def two_branch_rule(handle: Handle) -> Callable[[dict[str, Any]], Tensor]:
    """Post-CFG function: x_next = x0(edited) + sigma_next eps(unedited), the rule of Asyrp (Kwon et al. 2023, eq. 5) that DiffLens uses.

    A sampler takes one prediction D and steps to D + r (x - D) with r = sigma_next / sigma, so that D = (x0_edited - r x0_plain) / (1 - r)
    makes its step that of the rule: exact for Euler and DDIM with eta 0, an approximation for samplers of higher order. Where nothing was
    edited there is no second pass, and D stays as it is.
    """

    def rule(args: dict[str, Any]) -> Tensor:
        options = args["model_options"]
        run = options.get("transformer_options", {}).get(KEY, {}).get(handle)
        if run is None or not run.edited_since_asked():
            return args["denoised"]
        sigma, sigmas = float(args["sigma"].max()), options.get("transformer_options", {}).get("sample_sigmas")
        following = next_sigma(sigma, sigmas)
        if following is None or following >= sigma:
            return args["denoised"]
        conds = [args["cond"], args["uncond"]]
        given = without_run(options, handle)
        plain = comfy.samplers.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], given)
        unedited = plain[0] if args["uncond"] is None else plain[1] + (plain[0] - plain[1]) * args["cond_scale"]
        r = following / sigma
        return (args["denoised"] - r * unedited) / (1 - r)

    return rule


def next_sigma(sigma: float, sigmas: Tensor | None) -> float | None:
    """The noise level that follows one in a schedule; None where it is not on it (a sampler's step in between)."""
    if sigmas is None:
        return None
    near = (sigmas.float() - sigma).abs() <= 1e-4 * max(sigma, 1e-4)
    at = near.nonzero().flatten()
    return float(sigmas[at[0] + 1]) if len(at) and int(at[0]) + 1 < len(sigmas) else None


def apply_splice(model: Any, sae: SaeFile) -> Any:
    """A clone of MODEL that samples with h replaced by the autoencoder's reconstruction. Raises ValueError where they do not fit."""
    check_sae_fit(model, sae)
    used, networks = managed_sae(sae)
    return patch_model(model, lambda: SpliceRun(used), networks=networks)[0]


def check_sae_fit(model: Any, sae: SaeFile) -> None:
    """Raise ValueError, in a sentence, where an autoencoder was not made for a MODEL."""
    check_made_for(model, "autoencoder", sae.base_model, {sae.site: sae.sae.channels})
