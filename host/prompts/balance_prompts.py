"""Turn a target into a prompt for every image of a LATENT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...methods.core.assignment import seeded_assignment
from ...methods.core.cells_by_index import cells_by_index
from ...methods.core.targets import TargetDistribution
from ...methods.prompts.slots import SlottedPrompt, prompts_of
from ..core.passes.batch_slices import latent_rows
from ..core.passes.image_index import index_of_latent
from ..core.types import Latent
from ..ledger.ledgers import LedgerHandle
from ..ledger.observer import LedgerQuotas
from .batch_order import BATCH_IMAGES, POSITIONS


@dataclass(frozen=True)
class PromptBatch:
    """Hold the prompts of a batch."""

    target: TargetDistribution
    """Target that the classes follow."""
    cells: list[int]
    """Cell of every image."""
    prompts: list[str]
    """Prompt of every image."""
    notes: tuple[str, ...] = ()
    """Messages for the user."""

    @property
    def positions(self) -> dict[str, list[int]]:
        """Return the positions of the images of every distinct prompt, in the order in which the prompts first occur."""
        positions: dict[str, list[int]] = {}
        for position, prompt in enumerate(self.prompts):
            positions.setdefault(prompt, []).append(position)
        return positions

    def parts(self, latent: Latent) -> list[Latent]:
        """Cut a LATENT into one part per distinct prompt.

        Every part has the noise that its images have in the whole batch, and says where they belong.
        """
        images = len(self.prompts)
        whole = {**latent, "batch_index": list(latent.get("batch_index") or range(images)), BATCH_IMAGES: images}
        return [{**latent_rows(whole, rows), POSITIONS: rows} for rows in self.positions.values()]

    def text(self) -> str:
        """Write the target, the counts and the prompts."""
        counts = ", ".join(f"{name}: {self.cells.count(i)}" for i, name in enumerate(self.target.names))
        prompts = [f"{len(rows)} x {prompt}" for prompt, rows in self.positions.items()]
        return "\n".join([str(self.target), *self.notes, f"assigned {len(self.cells)} images: {counts}", *prompts])


def balance_prompts(
    prompt: SlottedPrompt, target: TargetDistribution, latent: Latent, seed: int, ledger: LedgerHandle | None = None
) -> PromptBatch:
    """Assign every image of a LATENT a cell of the target, and fill the slots of its prompt.

    The cell follows from the seed and the image's index in its batch, so that parts of a batch and picked images keep their cells. With a
    ledger its counts decide instead, and the images are counted as assigned at once.
    """
    index = index_of_latent(latent)
    if ledger is None:
        is_whole = index == list(range(len(index)))
        cells = cells_by_index(target.shares, target.sizes, index, seed, latent.get(BATCH_IMAGES, len(index) if is_whole else None))
        return PromptBatch(target, cells.tolist(), prompts_of(prompt, target, cells.tolist(), index, seed), target.notes)
    cells = _counted_cells(target, len(index), seed, ledger)
    note = f"quotas by the ledger '{ledger.name}': they make up for what its other images lack."
    return PromptBatch(target, cells, prompts_of(prompt, target, cells, index, seed), (*target.notes, note))


def _counted_cells(target: TargetDistribution, images: int, seed: int, ledger: LedgerHandle) -> list[int]:
    """Take the cells from a ledger's counts, and count them."""
    source = LedgerQuotas(ledger, seed)
    try:
        cells: Sequence[int] = seeded_assignment(source.quotas(target, images, seed), seed).tolist()
        source.finish(cells)
    finally:
        source.release()
    return list(cells)
