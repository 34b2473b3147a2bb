"""Print docs/composition.md from the list of partners. Run as a script, this file writes it."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests" / "host" / "helpers"))

from equipoise_partners import BESIDE, PATCHES, Partner  # noqa: E402

HEAD = """# Guidance and steering with other patches, samplers and conditionings

Distribution Guidance and Bias Feature Steer patch the MODEL. The tables below say what happens if you combine them with other nodes. The
tests run every row of them, and a script prints this page from the list of the tests. Do not edit the page by hand; if it is out of date,
a test names the command that prints it.

A few terms: *h* is the U-Net's activations at the site that our node reads and edits. A *call* is one evaluation of the U-Net. A *row* is
one image under one prompt within a call. A *quota* is the number of images of a batch that each class gets.

## How we tested

Every row was run with guidance and with steering, with our node before the other node and after it. It ran through ComfyUI's samplers on
the CPU, on a small U-Net of SD1.5's kind with random weights. For every row and both orders:

- Sampling finishes.
- Strength 0 gives the image of the other node alone, bit for bit.
- The edit changes every image.
- The quotas of the target are met.
- Only the rows named here are edited. If nothing is said, the rows of the positive prompt are edited and those of the negative are not
  (input `rows`).

If "order" says "any", both orders of the nodes give the same image, bit for bit.

Random weights do not tell how many images reach their class. We measured that for plain sampling only. So look at a histogram when you
combine nodes.
"""


def table(partners: tuple[Partner, ...], ordered: bool) -> str:
    """Write a Markdown table of the partners."""
    head = ["with", "nodes", *(["order"] if ordered else []), "what happens"]
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for p in partners:
        order = ["any" if p.same else "matters"] if ordered else []
        lines.append(f"| {' | '.join([p.name, p.nodes, *order, p.rule])} |")
    return "\n".join(lines)


def page() -> str:
    """Write the page as Markdown."""
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
