"""The font of everything that is drawn without matplotlib's own text."""

from __future__ import annotations

from PIL import ImageFont


def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans at a size in pixels; Pillow's own font where matplotlib is missing."""
    try:
        from matplotlib import get_data_path
    except ImportError:
        return ImageFont.load_default(size)
    # Matplotlib's own copy of DejaVu: it is there wherever the charts are, and knows more scripts than Pillow's default.
    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
