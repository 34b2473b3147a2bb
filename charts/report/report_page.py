"""The fairness report as a page: what was found, said so that it can be checked."""

from __future__ import annotations

from collections.abc import Sequence

from ...metrics.drift import DriftReport
from ...metrics.fairness import ShareReport
from ...metrics.findings import Findings, Quality
from .report_blocks import Block, Changes, Lines, Page, Section, Shares, Sheet, Table

PERCEIVED = (
    "Attributes are perceived: they are what a classifier, with errors of its own, sees in a picture. They say nothing of who anybody is."
)
HOW_SHARES = (
    "Shares are hard counts: each image counts for its most probable class. FD is the distance of the shares from the target, 0 = exactly "
    "as asked. Lines with ends are 95% bootstrap intervals: steered images that were sampled in batches are resampled in batches, others "
    "one by one. A fair sampler that draws every image independently has the stated FD by chance alone; quotas can go below it."
)
HOW_QUALITY = (
    "Frechet distance: of two Gaussians fitted to features; it is not 0 for two samples of one distribution, but about the stated floor, "
    "which grows as images get fewer: compare values at the same number of images only. Kernel distance: unbiased (0 on average where "
    "nothing differs); it stays below its floor in 95% of such cases. Which attributes images show moves these figures too: rows at the "
    "target's shares and within a class take that out."
)
HOW_DRIFT = (
    "Change of the shares of attributes that no target names, steered minus base, with 95% bootstrap intervals. Attributes that go "
    "together in the model's data move together."
)
HOW_AGREEMENT = (
    "Two networks that agree may err alike. Calibration error: how far the judge's confidence is from how often the other reader agrees, "
    "over 15 bins of confidence."
)


def report_page(
    findings: Findings,
    sheets: Sequence[Sheet],
    title: str = "Fairness report",
    subtitle: str = "",
    warnings: Sequence[str] = (),
    settings: Sequence[Sequence[str]] = (),
    files: Sequence[Sequence[str]] = (),
    software: Sequence[str] = (),
) -> Page:
    """Make the page of a report from its findings.

    sheets: images by class. settings: rows (node, which images, values); files: rows (name, place, size, SHA-256).
    """
    sections = [
        Section("In short", (Lines(tuple(headlines(findings))), *_warned([*warnings, *cautions(findings)]))),
        Section("Distribution", (Shares(findings.judged), Lines((HOW_SHARES, PERCEIVED)))),
        *_sections("Quality", _quality(findings)),
        *_sections("Drift of what was not targeted", _drift(findings)),
        *_sections("Can the judge be trusted here?", _agreement(findings)),
        *_sections("Images by class, as the judge reads them", list(sheets)),
        *_sections("Settings", [Table(("node", "images", "values"), tuple(map(tuple, settings)))] if settings else []),
        *_sections(
            "Files and software",
            ([Table(("file", "from", "size", "SHA-256"), tuple(map(tuple, files)))] if files else [])
            + ([Lines(tuple(software))] if software else []),
        ),
    ]
    return Page(title, subtitle, tuple(sections))


def headlines(findings: Findings) -> list[str]:
    """List the most important figures, a line each."""
    lines = []
    for judged in findings.judged:
        panel = judged.panels[0]
        lines.append(f"{panel.name}, by {judged.name}: {discrepancy(panel.report)}" + _before(panel.baseline))
    report = findings.judged[0].panels[0].report
    lines.append(f"An independent fair sampler has {report.noise_floor:.3f} by chance at {report.n} images.")
    worst = max(findings.judged[0].drift, key=lambda d: d.drift, default=None)
    if worst is not None:
        lines.append(f"Largest drift of an attribute that was not targeted: {worst.attribute}, {drifted(worst)}.")
    for name, pair in findings.similarity.items():
        lines.append(f"Same-seed similarity, {name}: {similarity_text(pair.cosine, pair.low, pair.high)}")
    return lines


def cautions(findings: Findings) -> list[str]:
    """List what a reader should know before trusting the figures.

    As far as the figures themselves show it.
    """
    judged, batch = findings.judged[0], findings.batch
    lines = []
    report = judged.panels[0].report
    if report.n < 64:
        lines.append(f"{report.n} images are few: chance alone leaves an FD of {report.noise_floor:.3f}.")
    if batch > 1 and report.resampled == "images":
        lines.append("All steered images are of one batch, and were resampled one by one: for quotas the interval is too wide.")
    if report.resampled == "batches" and report.n < 10 * batch:
        lines.append(f"{-(-report.n // batch)} batches of {batch} are few to resample: the intervals are too narrow.")
    unsure = max(report.unsure, judged.panels[0].baseline.unsure if judged.panels[0].baseline else 0.0)
    if unsure > 0.1:
        lines.append(
            f"The judge is unsure (highest probability below 80%) on {unsure:.0%} of the images of a set: its counts are soft there."
        )
    for (other, images, attribute), agreement in findings.agreement.items():
        if attribute in judged.panels[0].attributes and agreement.agreement < 0.9:
            lines.append(f"The judge and {other} agree on {agreement.agreement:.0%} of the {images} images only ({attribute}).")
    return lines


def discrepancy(r: ShareReport) -> str:
    """Write FD with its interval, as "FD 0.021 [0.000, 0.080]"."""
    interval = f" [{r.fd_low:.3f}, {r.fd_high:.3f}]" if r.fd_low is not None and r.fd_high is not None else " (no interval)"
    return f"{'FD' if r.target_given else 'distance to equal shares (no target)'} {r.fd:.3f}{interval}"


def drifted(d: DriftReport) -> str:
    """Write the largest change of a class, and what chance leaves."""
    at = max(range(len(d.classes)), key=lambda i: abs(d.change[i]))
    return f"'{d.classes[at]}' {100 * d.change[at]:+.1f} points (chance leaves {100 * d.floor:.1f} on average; p = {d.p_value:.2g})"


def similarity_text(cosine: float, low: float | None, high: float | None) -> str:
    """Write a cosine, also in the scale that the papers print."""
    bounds = f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else ""
    return f"cosine {cosine:.3f}{bounds}, as (cos+1)/2 {(cosine + 1) / 2:.3f}"


def _before(r: ShareReport | None) -> str:
    return (
        ""
        if r is None
        else f"; base images {r.fd:.3f}" + (f" [{r.fd_low:.3f}, {r.fd_high:.3f}]" if r.fd_low is not None and r.fd_high is not None else "")
    )


def _warned(texts: Sequence[str]) -> tuple[Block, ...]:
    return (Lines(tuple(texts), warning=True),) if texts else ()


def _sections(title: str, blocks: list[Block]) -> list[Section]:
    return [Section(title, tuple(blocks))] if blocks else []


def _quality(findings: Findings) -> list[Block]:
    blocks: list[Block] = []
    for name in dict.fromkeys(q.features for q in findings.quality):
        rows = tuple(_row(q) for q in findings.quality if q.features == name)
        kernel = next((q.kernel.kernel for q in findings.quality if q.features == name and q.kernel), "")
        blocks.append(Lines((f"In the features of {name}; kernel: {kernel}",)))
        blocks.append(Table(("images", "compared with", "n", "Frechet", "Frechet floor", "kernel", "kernel floor"), rows))
    likeness = [
        (name, f"{p.n}", similarity_text(p.cosine, p.low, p.high), "-" if p.unrelated is None else f"{p.unrelated:.3f}")
        for name, p in findings.similarity.items()
    ]
    if likeness:
        heads = ("features", "pairs", "steered and base, same seed", "of different seeds")
        blocks += [Lines(("Same-seed similarity",)), Table(heads, tuple(likeness))]
    if findings.prompted:
        blocks += [Lines(("Agreement with the prompt (CLIP-T)",)), _prompted(findings)]
    if findings.unstated:
        blocks.append(Lines(("Not stated: " + "; ".join(findings.unstated) + ".",)))
    return [*blocks, Lines((HOW_QUALITY,))] if findings.quality else blocks


def _row(q: Quality) -> tuple[str, ...]:
    f, k = q.frechet, q.kernel
    kernel, floor = ("-", "-") if k is None else (f"{k.value:.3g}", "-" if k.floor is None else f"{k.floor:.3g} (p = {k.p_value:.2g})")
    if k is not None and k.low is not None and k.high is not None:
        kernel += f" [{k.low:.3g}, {k.high:.3g}]"
    return q.what, q.to, f"{f.n}, {f.n_reference}", f"{f.value:.3g}", "-" if f.floor is None else f"{f.floor:.3g}", kernel, floor


def _prompted(findings: Findings) -> Table:
    assert findings.prompted is not None
    sets = {"base": findings.prompted.base, "steered": findings.prompted.steered}
    rows = [(name, f"{r.cosine:.4f}" + _interval(r.low, r.high), f"{r.score:.2f}") for name, r in sets.items()]
    if findings.prompted.change is not None:
        mean, low, high = findings.prompted.change
        rows.append(("change, same seeds", f"{mean:+.4f}" + _interval(low, high), ""))
    return Table(("images", "cosine of image and prompt", "x 100, at least 0"), tuple(rows))


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{low:.4f}, {high:.4f}]"


def _drift(findings: Findings) -> list[Block]:
    blocks: list[Block] = []
    for judged in findings.judged:
        if judged.drift:
            blocks += [Lines((f"By {judged.name}",)), Changes(judged.drift)]
    return [*blocks, Lines((HOW_DRIFT,))] if blocks else []


def _agreement(findings: Findings) -> list[Block]:
    if not findings.agreement:
        return []
    rows = []
    for (other, images, attribute), r in findings.agreement.items():
        classes = ", ".join(f"{c} {'-' if v is None else f'{v:.1%}'}" for c, v in zip(r.classes, r.by_class, strict=True))
        kappa = "-" if r.kappa is None else f"{r.kappa:.3f}"
        rows.append(
            (
                f"{attribute}, {images}",
                other,
                f"{r.agreement:.1%} [{r.low:.1%}, {r.high:.1%}]",
                kappa,
                classes,
                f"{r.expected_calibration_error:.1%}",
            )
        )
    heads = ("attribute, images", "second classifier", "agreement", "kappa", "agreement by class", "calibration error")
    return [Table(heads, tuple(rows)), Lines((HOW_AGREEMENT,))]
