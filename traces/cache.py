"""Where things that can be made again are kept between runs."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the user cache: ``$ENTROPIC_CACHE``, or ``entropic-time`` under the XDG cache."""
    own = os.environ.get("ENTROPIC_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(base) / "entropic-time"
