"""What a ledger holds, in words."""

from __future__ import annotations

from collections.abc import Sequence

from .ledger import Balance


def ledger_text(name: str, balances: Sequence[Balance], restored: int = 0) -> str:
    """Describe what a ledger holds, in a few lines per target.

    ``restored``: pictures whose row had been lost and was written again.
    """
    lines = [f"ledger '{name}': {sum(sum(h.counts) for h in balances)} images"]
    if restored:
        lines.append(f"{restored} pictures whose row was lost were counted again")
    for h in balances:
        group = f" [{h.group}]" if h.group else ""
        cells = ", ".join(f"{c} {n}" for c, n in zip(h.target.names, h.counts, strict=True))
        lines.append(f"{' x '.join(h.target.attributes)}{group}: {cells}")
        hits = f"; {h.hits} of {h.asked} show the class that they were assigned" if h.asked else ""
        lines.append(f"  {sum(h.seen)} counted as seen, {sum(h.assigned)} as assigned{hits}; asked for {h.target}")
    return "\n".join(lines)


def record_text(seen: Sequence[tuple[str, ...]], assigned: Sequence[tuple[str, ...] | None], attributes: Sequence[str]) -> str:
    """Describe what was assigned and what was seen.

    In numbers, and image by image for a few images.
    """
    known = [(s, a) for s, a in zip(seen, assigned, strict=True) if a is not None]
    missed = sum(s != a for s, a in known)
    head = f"{len(seen)} images recorded by {' x '.join(attributes)}"
    misses = f", {missed} of {len(known)} missed their class" if known else ", with no class assigned"
    most = [
        f"  image {i}: {'/'.join(s)}" + ("" if a is None else f" (assigned {'/'.join(a)})")
        for i, (s, a) in enumerate(zip(seen, assigned, strict=True))
    ]
    return "\n".join([head + misses, *most[:8], *([f"  and {len(most) - 8} more"] if len(most) > 8 else [])])
