"""Curves over training steps and over noise levels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .missing import chart
from .style import FAINT, GRID, INK, PALETTE, Image, add_axes, new_figure, pixels, points, write

WIDTH, HEIGHT = 960, 520
LEFT, TOP, RIGHT, BOTTOM = 92, 84, 28, 70
LOG_SNR = "log-SNR   (noise on the left, image on the right)"
PLAIN, LOG, SHARE, FROM_ZERO = "plain", "log", "share", "from zero"


def training_curves(logs: Mapping[str, Sequence[Mapping[str, float]]], title: str = "", key: str = "loss", log_scale: bool = True) -> Image:
    """Draw loss against step of one or more trainings: uint8 [520, 960, 3].

    logs: name -> entries with "step" and ``key``, as :class:`..methods.training.TrainState` writes them. Raises ValueError where there is
    nothing to draw.
    """
    curves = {n: [(float(e["step"]), float(e[key])) for e in log if key in e and math.isfinite(e[key])] for n, log in logs.items()}
    return _lines(curves, _Frame(title or f"{key} while training", "step", key, LOG if log_scale else PLAIN))


def learning_curves(curve: Sequence[tuple[int, Mapping[str, float]]], title: str) -> Image:
    """Draw a line per figure of a training: uint8 [520, 960, 3].

    curve: (step, figure -> value).

    Raises ValueError where there is nothing to draw.
    """
    names = dict.fromkeys(name for _, figures in curve for name in figures)
    logs = {name: [{"step": step, "loss": figures[name]} for step, figures in curve if name in figures] for name in names}
    return training_curves(logs, title)


def accuracy_by_log_snr(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    title: str = "",
    chance: Mapping[str, float] | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> Image:
    """Draw accuracy against the noise level: uint8 [520, 960, 3].

    One line per attribute; sampling runs from left (noise) to right (image).

    curves: attribute -> (log-SNR, accuracy in 0..1). chance: accuracy of guessing, a dotted line in the attribute's colour. windows:
    log-SNR from, to, in which the attribute is guided, a bar under its curve. Raises ValueError where there is nothing to draw.
    """
    return _lines(curves, _Frame(title or "accuracy by noise level", LOG_SNR, "accuracy", SHARE), chance, windows)


def curves_by_log_snr(
    curves: Mapping[str, Sequence[tuple[float, float]]], title: str, y_name: str, chance: Mapping[str, float] | None = None
) -> Image:
    """Draw any quantity against the noise level: uint8 [520, 960, 3].

    One line per attribute; ``chance``: its value for guessing, dotted.

    Raises ValueError where there is nothing to draw.
    """
    return _lines(curves, _Frame(title, LOG_SNR, y_name, FROM_ZERO), chance)


def share_by_size(curves: Mapping[str, Sequence[tuple[float, float]]], title: str, threshold: float) -> Image:
    """Draw the share read as a class against an edit's size: uint8 [520, 960, 3].

    One line per class; ``threshold``: dotted.

    curves: class -> (size, share in 0..1). Raises ValueError where there is nothing to draw.
    """
    chance = dict.fromkeys(list(curves)[:1], threshold)
    return _lines(curves, _Frame(title, "size of the edit", "share of images", SHARE), chance)


def share_by_strength(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Image:
    """Draw the share read as a class against steering's strength: uint8 [520, 960, 3].

    One line per class.

    curves: class -> (strength, share in 0..1). Raises ValueError where there is nothing to draw.
    """
    strength = "strength   (0: off, 1: as calibrated, below 0: to the other class)"
    return _lines(curves, _Frame(title, strength, "share of images", SHARE))


@dataclass(frozen=True)
class _Frame:
    """Title, axes and scale of a chart of curves."""

    title: str
    """Title of the chart."""
    x_name: str
    """Name of the x axis."""
    y_name: str
    """Name of the y axis."""
    scale: str
    """Scale of y: ``PLAIN``, ``LOG``, ``SHARE`` (in percent, up to 100) or ``FROM_ZERO``."""


@chart
def _lines(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    frame: _Frame,
    chance: Mapping[str, float] | None = None,
    windows: Mapping[str, tuple[float, float]] | None = None,
) -> Image:
    if not any(curves.values()):
        raise ValueError("a chart of curves needs at least one point, and there is none: check that the training log is not empty.")
    figure = new_figure(WIDTH, HEIGHT)
    write(figure, 24, 18, frame.title, 24, weight="bold")
    axes = add_axes(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
    for i, (name, unsorted) in enumerate(curves.items()):
        ordered, colour = sorted(unsorted), PALETTE[i % len(PALETTE)]
        if not ordered:
            continue
        x, y = zip(*ordered, strict=True)
        # A marker as well as a colour tells the curves apart; not on every point of a long one.
        style = {"marker": "osD^vP*X"[i % 8], "markersize": points(8), "markevery": max(1, len(x) // 12), "linewidth": points(2.6)}
        axes.plot(x, y, color=colour, label=name, zorder=3, clip_on=False, **style)
        if chance and name in chance:
            axes.axhline(chance[name], color=colour, linewidth=points(2), linestyle=":", zorder=2)
        if windows and name in windows:
            axes.axvspan(*windows[name], 0.008 + 0.022 * i, 0.020 + 0.022 * i, color=colour, zorder=2)
    if frame.scale == LOG and all(y > 0 for c in curves.values() for _, y in c):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}")
        axes.yaxis.set_minor_formatter(_minor)
        axes.tick_params(which="minor", length=0, labelsize=points(13), labelcolor=FAINT)
    elif frame.scale == SHARE:
        low = min([y for c in curves.values() for _, y in c] + list((chance or {}).values()))
        axes.set_ylim(max(0.0, math.floor(low * 10 - 0.5) / 10), 1.0)
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    elif frame.scale == FROM_ZERO:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(frame.x_name, fontsize=points(17), color=INK, labelpad=points(8))
    axes.set_ylabel(frame.y_name, fontsize=points(17), color=INK)
    axes.grid(color=GRID, linewidth=points(1))
    if len(curves) > 1:
        figure.legend(loc="upper right", bbox_to_anchor=(1 - 20 / WIDTH, 1 - 44 / HEIGHT), ncols=4, frameon=False, fontsize=points(17))
    return pixels(figure)


def _minor(value: float, _: int | None) -> str:
    """Label 2 and 5 between the decades."""
    digit = round(value / 10 ** math.floor(math.log10(value)))
    return f"{value:g}" if digit in (2, 5) else ""
