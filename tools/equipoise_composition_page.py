"""docs/composition.md from the list of partners. Run as a script, this file writes it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "host"))

from equipoise_partners import BESIDE, PATCHES, Partner  # noqa: E402

HEAD = """# With other patches, samplers and conditionings

Distribution Guidance and Bias Feature Steer are patches of the MODEL. This table says what each does together with something else. It is
printed from the list that the tests run (`tests/host/equipoise_partners.py`); do not edit it by hand, run
`python tools/equipoise_composition_page.py`.

Every row was run with guidance and with steering, with our node before the other and after it, through the host's samplers on the CPU, on a
small U-Net of SD1.5's kind with random weights. For every row and both orders: sampling finishes, strength 0 gives the other's image bit
for bit, the edit changes every image, the quotas of the target are kept, and only the rows named here are edited. Random weights say
nothing about how many images reach their class: that is measured for plain sampling only, so look at a histogram when you combine.

Where nothing else is said, the order of the nodes does not matter: both orders give the same image, bit for bit. The positive's rows are
edited and the negative's are not (input `rows`).
"""


def table(partners: tuple[Partner, ...], ordered: bool) -> str:
    """Rows of Markdown."""
    head = ["with", "nodes", *(["order"] if ordered else []), "what happens"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for p in partners:
        order = ["no matter" if p.same else "matters"] if ordered else []
        lines.append(f"| {' | '.join([p.name, p.nodes, *order, p.rule])} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    return "\n".join(
        [
            HEAD,
            "## Patches of the MODEL",
            "",
            table(PATCHES, True),
            "",
            "## Conditionings, latents and samplers",
            "",
            table(BESIDE, False),
            "",
        ]
    )


if __name__ == "__main__":
    (ROOT / "docs" / "composition.md").write_text(page(), encoding="utf-8")
