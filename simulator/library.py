"""A recorded trace as the simulator uses it, prepared once and then opened in milliseconds.

Preparing needs the Parquet reader (tens of megabytes and a fifth of a second to import) and every
column. What comes of it is kept in the user's cache as plain arrays, opened memory-mapped: a later
run imports no pyarrow and touches only the rows its requests use.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.library_file import Damaged, read_folder, write_folder
from simulator.model import TraceModel
from simulator.residual import Residual
from traces.cache import cache_folder
from traces.recorded import RecordedRequest

if TYPE_CHECKING:
    from traces.store import Trace

FORMAT = 1  # of the folder; the sources that prepare arrays are part of its name as well
SOURCES = ("curves.py", "library.py", "library_file.py", "model.py", "pruning.py", "residual.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """What a simulation needs of a trace; the names it shares with ``Trace`` mean the same."""

    path: Path
    sha256: str  # of the trace file
    metadata: dict[str, Any]
    requests: tuple[RecordedRequest, ...]
    model: TraceModel
    residual: Residual

    @classmethod
    def of(cls, trace: Trace) -> Library:
        """Prepare a trace that is in memory."""
        return cls(
            path=trace.path,
            sha256=trace.sha256,
            metadata=trace.metadata,
            requests=trace.requests,
            model=TraceModel.of(trace),
            residual=Residual.fit(trace),
        )

    @property
    def vocabulary(self) -> int:
        """One more than the largest token id seen; the true size is not in a trace."""
        return max(self.model.tokens, default=0) + 1


def load_library(path: Path | str, *, cache: Path | None = None) -> Library:
    """Return the trace at ``path``, prepared; from the cache where it was prepared before.

    ``cache`` is a folder, by default the user's. A copy that is damaged, or that another version
    made, is prepared again. Where the cache cannot be written the trace is prepared every time.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return _prepared(path)  # whose error says what is wrong, in a trace's terms
    kept = (cache_folder() if cache is None else cache) / "traces"
    folder = kept / f"{sha256[:24]}-{FORMAT}-{_sources()}"
    try:
        arrays, texts = read_folder(folder)
        return _opened(path, sha256, arrays, texts)
    except (Damaged, OSError, KeyError):
        made = _prepared(path)
    if made.sha256 == sha256:  # or the file has changed meanwhile
        write_folder(folder, *_parts(made))
    return made


def _prepared(path: Path) -> Library:
    from traces.store import read_trace

    return Library.of(read_trace(path))


def _sources() -> str:
    digest = hashlib.sha256(np.__version__.encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return digest.hexdigest()[:8]


def _parts(made: Library) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Take a library apart into arrays and what JSON can hold."""
    from dataclasses import asdict

    model, residual = made.model, made.residual
    arrays = {
        "x_nodes": model.curves.x_nodes,
        "h_terms": model.curves.h_terms,
        "nll_terms": model.curves.nll_terms,
        "shares": model.shares.shares,
        "coverages": model.shares.coverages,
        "depths": model.shares.depths,
        "h_cal": model.h_cal,
        "v_cal": model.v_cal,
        "tokens": np.array(model.tokens, np.int64),
        "slices": model.slices,
        "ends_itself": model.ends_itself,
        "residual_coverages": residual.coverages,
        "residual_sigma": residual.sigma,
        "residual_std": residual.std_nats,
        "residual_bias": residual.bias_nats,
    }
    names = ("t_cal", "page_tokens", "layers", "kv_heads", "page_unit_bytes")
    texts = {
        "metadata": made.metadata,
        "requests": [asdict(request) for request in made.requests],
        "residual_samples": residual.samples,
        "model": {name: getattr(model, name) for name in names},
    }
    return arrays, texts


def _opened(
    path: Path, sha256: str, arrays: dict[str, np.ndarray], texts: dict[str, Any]
) -> Library:
    """Put a library together again."""
    from simulator.curves import CurveTable
    from simulator.pruning import ShareTable

    curves = CurveTable(arrays["x_nodes"], arrays["h_terms"], arrays["nll_terms"])
    return Library(
        path=path,
        sha256=sha256,
        metadata=texts["metadata"],
        requests=tuple(RecordedRequest(**row) for row in texts["requests"]),
        model=TraceModel(
            curves=curves,
            shares=ShareTable(arrays["shares"], arrays["coverages"], arrays["depths"]),
            h_cal=arrays["h_cal"],
            v_cal=arrays["v_cal"],
            tokens=arrays["tokens"].tolist(),
            slices=arrays["slices"],
            ends_itself=arrays["ends_itself"],
            **texts["model"],
        ),
        residual=Residual(
            coverages=arrays["residual_coverages"],
            sigma=arrays["residual_sigma"],
            std_nats=arrays["residual_std"],
            bias_nats=arrays["residual_bias"],
            samples=texts["residual_samples"],
        ),
    )
