"""Names found in captures of other profilers, made fit to be printed and compared."""

from __future__ import annotations

LONGEST = 20_000  # characters; the longest name of a CUTLASS kernel seen has 6,000


def printable(text: str, longest: int = LONGEST) -> str:
    """``text`` on one line, without characters that steer a terminal or hide, at most ``longest``.

    White space becomes a space, anything else that cannot be printed U+FFFD.
    """
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else " " if letter.isspace() else "\ufffd" for letter in text
    )


def api_name(text: str) -> str:
    """Name of a CUDA API call without its version: cudaLaunchKernel_v7000 is cudaLaunchKernel."""
    return printable(text).split("_v")[0]
