"""Runs: the state of one sampling, called at sites of the denoiser, from its first call to its last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from ...models.noise_level import log_snr

AnyRun = TypeVar("AnyRun", bound="Run")
LevelOf = Callable[[float], float]
"""Sigma -> log-SNR."""


def plain_level(sigma: float) -> float:
    """Convert a sigma to log-SNR, for models whose signal has unit scale."""
    return float(log_snr(sigma))


@dataclass(frozen=True)
class Call:
    """Describe one call of the denoiser, as a run sees it at a site."""

    options: Mapping[str, Any]
    """Transformer options of the call, in ComfyUI's form: ``sigmas``, ``cond_or_uncond``, ``uuids``."""
    sigma: float
    """Noise level as the sampler counts it; the highest of the batch."""
    level: float
    """Noise level as log-SNR."""
    roles: Mapping[Any, str] | None = None
    """Role of every conditioning by its uuid (:mod:`.rows`); None where it is not known."""

    @classmethod
    def read(cls, options: Mapping[str, Any], roles: Mapping[Any, str] | None = None, level_of: LevelOf = plain_level) -> Call:
        """Read a call from transformer options."""
        sigma = float(options["sigmas"].max())
        return cls(options, sigma, level_of(sigma), roles)


class Run:
    """Hold the state of one sampling.

    A subclass says at which sites it is called, and what it does there.
    A run is made when sampling starts and released when it ends. Who attaches it sets the attributes.
    """

    what = "the run"
    """Subject of messages about the run."""
    exempt = False
    """Whether all positives are exempt from guidance, so that the run does nothing."""
    images: int | None = None
    """Number of images of the run, where it is known. The calls of a context window hold fewer."""
    on_cpu = False
    """Whether edits are computed on the CPU because the device lacks an operation."""
    level_of: LevelOf = staticmethod(plain_level)
    """Converts the sigmas of the model to log-SNR."""

    def __init__(self, sites: Iterable[str] = ()) -> None:
        self._sites = frozenset(sites)

    @property
    def sites(self) -> frozenset[str]:
        """Sites at which the run is called."""
        return self._sites

    def edit(self, site: str, h: Tensor, call: Call) -> Tensor:
        """Take h at a site and return the h to continue with.

        h [R, C, H, W]. The result is a new tensor if it was edited, else the same object.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Conclude the run after sampling ended well.

        Raises ValueError where the run did not get what it needs.
        """

    def release(self) -> None:
        """Drop the tensors and networks; the run ends here, also when sampling failed."""
        self.level_of = plain_level

    def __deepcopy__(self: AnyRun, memo: dict[int, Any]) -> AnyRun:
        # The host may copy its options deeply. A run is one object with one state.
        return self
