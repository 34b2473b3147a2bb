"""Names as users write them: between separators, in double quotes if they hold a separator themselves."""

from __future__ import annotations

import re

QUOTE = '"'
_SIGNS = str.maketrans("，、；：＝％／．－＋＊｜＂“”„«»‟０１２３４５６７８９\u3000\u00a0", ',,;:=%/.-+*|""""""' + '"0123456789  ')
"""Full-width signs and digits, other quotes and other blanks -> the ASCII ones."""
_NEEDS_QUOTES = re.compile(r'[,;:=%/|<>*\n"]|^\s|\s$|\s[xX×]\s|^[-+.\d]')


def plain_signs(text: str) -> str:
    """Replace full-width signs and digits, and curly quotes, by the ASCII ones."""
    return text.translate(_SIGNS)


def outside_quotes(pattern: str) -> re.Pattern[str]:
    """Compile a pattern that matches only outside of double quotes."""
    return re.compile(rf'(?:{pattern})(?=(?:[^"]*"[^"]*")*[^"]*$)')


def split_names(text: str, separators: str = r"[,;\n]") -> list[str]:
    """Split text at a pattern outside of quotes.

    Parts are stripped, and empty ones are left out.
    """
    return [part.strip() for part in outside_quotes(separators).split(text) if part.strip()]


def bare_name(text: str) -> str:
    """Return a name without the quotes around it."""
    text = text.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] == QUOTE else text


def written_name(name: str) -> str:
    """Write a name so that it can be read back.

    It gets quotes if it holds a separator.
    """
    return f'"{name}"' if _NEEDS_QUOTES.search(name) else name
