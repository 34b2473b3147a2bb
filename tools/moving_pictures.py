"""Make the moving pictures of the README: docs/slider.webp and docs/live_bar.webp.

    python tools/moving_pictures.py slider            a target's slider moves a batch of the shipped model; a minute on one core
    python tools/moving_pictures.py live PICTURE ...  pictures of a running node, from tools/live_frames.mjs; those that repeat are left out
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parents[1]
IMAGES, SEED = 16, 400_000_000
SHARES = tuple(i / 8 for i in range(9))
WIDTH, TRACK = 640, "#D9D9D9"
FRAME_MS, PAUSE_MS = 450, 1400


def slider_frames() -> list[Image.Image]:
    """Sample one batch at every share of eyeglasses, from the same noise, and draw it under a slider."""
    from equipoise.charts.core.sheet import colour, contact_sheet
    from equipoise.cli.sampling import sample
    from equipoise.methods.core.target_text import parse_target
    from equipoise.methods.guidance.run import GuidanceRun, GuidanceSettings
    from equipoise.shipped import weights

    net, adp, judge = weights.diffusion(), weights.adp(), weights.classifier(weights.JUDGE)
    seeds, frames = list(range(SEED, SEED + IMAGES)), []
    for share in SHARES:
        target = parse_target(f"eyeglasses: yes={share}, no={1 - share}", adp.attributes).reordered(judge.attributes)
        made = sample(net, seeds, IMAGES, make_run=lambda _, seed, t=target: GuidanceRun(adp, GuidanceSettings(t, seed=seed)))
        seen = judge.probabilities(made.images)["eyeglasses"].argmax(-1).tolist()
        names = [f"eyeglasses {name}" for name in judge.attributes["eyeglasses"]]
        sheet = Image.fromarray(np.asarray(contact_sheet(made.images, seen, names, "", "", columns=8)))
        sheet = sheet.resize((WIDTH, round(sheet.height * WIDTH / sheet.width)), Image.Resampling.LANCZOS)
        frame = Image.new("RGB", (WIDTH, sheet.height + 56), "#FFFFFF")
        frame.paste(sheet, (0, 56))
        _draw_slider(frame, share, colour(judge.attributes["eyeglasses"].index("yes")))
        frames.append(frame)
    return frames


def _draw_slider(frame: Image.Image, share: float, fill: str) -> None:
    from matplotlib import get_data_path

    draw, left, right = ImageDraw.Draw(frame), 250, WIDTH - 24
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 18)
    at = left + share * (right - left)
    draw.text((12, 16), f"with eyeglasses: {share:.1%}".replace(".0%", "%"), "#1A1A1A", font)
    draw.line((left, 28, right, 28), TRACK, 6)
    draw.line((left, 28, at, 28), fill, 6)
    draw.ellipse((at - 10, 18, at + 10, 38), fill)


def without_repeats(frames: list[Image.Image]) -> list[Image.Image]:
    """Leave out frames that are equal to the one before."""
    return [frame for i, frame in enumerate(frames) if i == 0 or ImageChops.difference(frame, frames[i - 1]).getbbox()]


def save(frames: list[Image.Image], path: Path, durations: list[int]) -> None:
    """Write frames as an animated WebP that repeats."""
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=60, method=6)
    print(f"{path.relative_to(ROOT)}: {len(frames)} frames, {path.stat().st_size // 1000} kB")


def main(arguments: list[str]) -> int:
    """Make the picture that the first argument names."""
    spec = importlib.util.spec_from_file_location("equipoise_dev", ROOT / "dev.py")
    dev = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dev)
    dev.register()
    if arguments[:1] == ["slider"]:
        frames = slider_frames()
        frames += frames[-2:0:-1]
        ends = (0, len(SHARES) - 1)
        save(frames, ROOT / "docs" / "slider.webp", [PAUSE_MS if i in ends else FRAME_MS for i in range(len(frames))])
    elif arguments[:1] == ["live"] and len(arguments) > 2:
        frames = without_repeats([Image.open(path).convert("RGB") for path in arguments[1:]])
        save(frames, ROOT / "docs" / "live_bar.webp", [FRAME_MS] * (len(frames) - 1) + [2 * PAUSE_MS])
    else:
        print(__doc__)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
