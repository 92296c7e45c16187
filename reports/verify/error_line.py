"""What an exception says, on one line."""

from __future__ import annotations


def error_line(error: BaseException) -> str:
    """Return the class and the message, without line breaks."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
