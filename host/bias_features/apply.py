"""Bias-feature steering as a patch of a host MODEL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
from torch import Tensor

from ...methods.bias_features.run import SteeringRun, SteerSettings, resolve_steering
from ...models.adp import AdpFile
from ...models.bias_features import BiasFeatures, check_sae
from ...models.sae import SaeFile
from ..core.hooks import Handle, run_of, without_run
from ..core.managed_networks import managed_adp, managed_sae
from ..core.passes.batch_observers import batch_observers
from ..core.patch import patch_model
from ..core.sites import check_fit, check_made_for
from ..core.types import Model
from ..ledger.ledgers import LedgerHandle
from ..ledger.observer import ledger_observer


def apply_steering(
    model: Model,
    sae: SaeFile,
    bias: BiasFeatures,
    settings: SteerSettings,
    adp: AdpFile | None = None,
    asyrp: bool = False,
    on_finish: Callable[[SteeringRun], None] | None = None,
    ledger: LedgerHandle | None = None,
) -> Model:
    """Return a clone of MODEL that is steered; the original stays as it was.

    ``asyrp``: use the paper's two-branch rule (:func:`two_branch_rule`), with a second U-Net pass per step. ``on_finish`` gets every run
    that ended well. ``ledger``: its counts decide the quotas, and images are counted there. With strength 0 or an empty window the clone
    has no patch at all. Raises ValueError where autoencoder, bias features, ADP, settings and model do not belong together.
    """
    check_sae_fit(model, sae)
    check_sae(bias, sae)
    if adp is not None:
        check_fit(model, adp)
    resolve_steering(bias, settings, adp)  # raises now, not in the middle of a queue
    if settings.strength == 0 or settings.sigma_start < settings.sigma_end:
        return model.clone()
    (used, networks), (read_by, more_networks) = managed_sae(sae), managed_adp(adp)
    observers = batch_observers(ledger_observer(ledger), on_finish)
    clone, handle = patch_model(model, lambda: SteeringRun(used, bias, settings, read_by), observers, [*networks, *more_networks])
    if asyrp:
        clone.set_model_sampler_post_cfg_function(two_branch_rule(handle))
    return clone


def two_branch_rule(handle: Handle) -> Callable[[dict[str, Any]], Tensor]:
    """Make a post-CFG function for Asyrp's rule: x_next = x0(edited) + sigma_next eps(unedited).

    DiffLens uses this rule (Kwon et al. 2023, eq. 5). A sampler takes one prediction D and steps to D + r (x - D) with
    r = sigma_next / sigma. Therefore D = (x0_edited - r x0_plain) / (1 - r) makes the step of the rule. This is exact for Euler and for
    DDIM with eta 0, and an approximation for samplers of higher order. If nothing was edited, there is no second pass and D stays the same.
    """

    def rule(args: dict[str, Any]) -> Tensor:
        options = args["model_options"]
        run = run_of(options.get("transformer_options", {}), handle)
        if run is None or not run.edited_since_asked():
            return args["denoised"]
        sigma, sigmas = float(args["sigma"].max()), options.get("transformer_options", {}).get("sample_sigmas")
        following = next_sigma(sigma, sigmas)
        if following is None or following >= sigma:
            return args["denoised"]
        conds = [args["cond"], args["uncond"]]
        plain = comfy.samplers.calc_cond_batch(args["model"], conds, args["input"], args["sigma"], without_run(options, handle))
        unedited = plain[0] if args["uncond"] is None else plain[1] + (plain[0] - plain[1]) * args["cond_scale"]
        r = following / sigma
        return (args["denoised"] - r * unedited) / (1 - r)

    return rule


def next_sigma(sigma: float, sigmas: Tensor | None) -> float | None:
    """Return the sigma that follows one in a schedule.

    None if it is not in the schedule (a sampler's step in between).
    """
    if sigmas is None:
        return None
    near = (sigmas.float() - sigma).abs() <= 1e-4 * max(sigma, 1e-4)
    at = near.nonzero().flatten()
    return float(sigmas[at[0] + 1]) if len(at) and int(at[0]) + 1 < len(sigmas) else None


def check_sae_fit(model: Model, sae: SaeFile) -> None:
    """Check that an autoencoder was made for a MODEL. Raises ValueError where it was not."""
    check_made_for(model, "autoencoder", sae.base_model, {sae.site: sae.sae.channels})
