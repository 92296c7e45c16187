"""Draw arrivals from ServeGen's published fits: clients, each with its own rate and gaps.

ServeGen (arXiv 2505.09999) publishes, per client and ten-minute window, a rate, a family of gaps
and its arguments; and token-length histograms. What is drawn here are samples of those fits, never
recorded requests. Windows in which every client is silent are missing data, and are skipped.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.core import require
from traces.arrivals import Arrivals, ArrivalsError, Labels

WINDOW_S = 600.0
CLIENTS, PDFS = "servegen_clients_10min.csv.gz", "servegen_length_pdfs.json.gz"
SAMPLES = "drawn from published fits of clients' rates, gaps and lengths: no recorded requests"
BATCH = 256  # gaps drawn at once
MOST_GAPS = 2_000_000  # of one client in one window; more is a misread rate


@dataclass(frozen=True, slots=True)
class Window:
    """One client in one window."""

    client: int
    t_s: float  # start of the window
    rate_per_s: float
    family: str  # "Gamma" or "Weibull"
    shape: float  # the first published argument; the scale follows from the rate


def read_windows(folder: Path, model: str, start_s: float, end_s: float) -> list[Window]:
    """Return the windows of ``model`` that begin in ``[start_s, end_s)``, by client and time."""
    path = folder / CLIENTS
    found, models = [], set()
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            for line, row in enumerate(csv.DictReader(file), start=2):
                models.add(row["model"])
                if row["model"] == model and start_s <= float(row["t_s"]) < end_s:
                    found.append(_window(row, path, line))
    except (OSError, EOFError, KeyError, ValueError) as error:
        if isinstance(error, ArrivalsError):
            raise
        raise ArrivalsError(f"{path}: cannot be read: {error!r}") from error
    if model not in models:
        raise ArrivalsError(f"model must be one of {sorted(models)}; got {model!r}")
    if not found:
        raise ArrivalsError(f"{path}: {model} has no window in [{start_s:g}, {end_s:g}) s")
    return sorted(found, key=lambda window: (window.client, window.t_s))


def draw(
    folder: Path,
    model: str,
    *,
    start_s: float,
    duration_s: float,
    share: float,
    rng: np.random.Generator,
) -> Arrivals:
    """Draw the arrivals of ``duration_s`` seconds from ``start_s`` on, with lengths.

    ``share`` in (0, 1] multiplies every client's rate: a part of the load with the same mixture
    and the same burstiness per client, which a cluster of test size can hold.
    """
    require(0.0 < share <= 1.0, "share must lie in (0, 1]", share=share)
    require(start_s >= 0.0 and duration_s > 0.0, "duration_s must be > 0", duration_s=duration_s)
    windows = read_windows(folder, model, start_s, start_s + duration_s)
    drawn = _client_times(windows, share, rng)
    clients = np.repeat([window.client for window in windows], [len(times) for times in drawn])
    times_s = np.concatenate(drawn)
    order = np.argsort(times_s, kind="stable")
    order = order[times_s[order] < start_s + duration_s]
    times_s, clients = times_s[order], clients[order]
    if not len(times_s):
        raise ArrivalsError(f"no arrival was drawn: {model}, share {share:g}, {duration_s:g} s")
    pdfs = _pdfs(folder, model)
    return Arrivals(
        times_s=times_s - times_s[0],
        prompt_tokens=_lengths(pdfs, "input_tokens", len(times_s), rng),
        output_tokens=_lengths(pdfs, "output_tokens", len(times_s), rng),
        source=f"samples of ServeGen's fits of {model}, from {start_s:g} s, share {share:g}",
        tenants=Labels.of([f"client {client}" for client in clients.tolist()]),
        licence="Apache-2.0 (fits: alibaba/ServeGen)",
        notes=(SAMPLES,),
    )


def _window(row: dict[str, str], path: Path, line: int) -> Window:
    family, shape, rate = row["iat_family"], float(row["iat_arg1"]), float(row["rate_rps"])
    if family not in ("Gamma", "Weibull") or not (shape > 0.0 and rate > 0.0):
        raise ArrivalsError(f"{path}:{line}: iat_family, iat_arg1, rate_rps: got {row}")
    return Window(int(row["client"]), float(row["t_s"]), rate, family, shape)


def _client_times(
    windows: list[Window], share: float, rng: np.random.Generator
) -> list[np.ndarray]:
    """Return arrival times per window; what a gap leaves over is carried into the next window."""
    drawn, client, waiting = [], None, 0.0
    for window in windows:
        if window.client != client:  # a client has been going for ever: start inside a gap
            client, waiting = window.client, float(rng.random() * _gaps(window, 1, rng)[0])
        expected = window.rate_per_s * share * WINDOW_S
        reached = [np.array([waiting])]
        while reached[-1][-1] < expected:
            require(len(reached) * BATCH < MOST_GAPS, "too many gaps", rate_rps=window.rate_per_s)
            reached.append(reached[-1][-1] + np.cumsum(_gaps(window, BATCH, rng)))
        points = np.concatenate(reached)
        inside = points < expected
        drawn.append(window.t_s + points[inside] / (window.rate_per_s * share))
        waiting = float(points[~inside][0] - expected)
    return drawn


def _gaps(window: Window, n: int, rng: np.random.Generator) -> np.ndarray:
    """Return ``n`` gaps of mean 1 in the window's family and published shape."""
    if window.family == "Gamma":
        return rng.gamma(window.shape, 1.0 / window.shape, n)
    return rng.weibull(window.shape, n) / math.gamma(1.0 + 1.0 / window.shape)


def _pdfs(folder: Path, model: str) -> dict[str, dict[str, float]]:
    path = folder / PDFS
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            fields = json.load(file)[model]["fields"]
        return {name: fields[name]["pdf"] for name in ("input_tokens", "output_tokens")}
    except KeyError as error:
        raise ArrivalsError(f"{path}: {model} has no lengths for {error}") from None
    except (OSError, EOFError, ValueError) as error:
        raise ArrivalsError(f"{path}: cannot be read: {error}") from error


def _lengths(
    pdfs: dict[str, dict[str, float]], name: str, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw from a histogram of lengths, evenly within a bin; int64 ``[n]``, >= 1 token.

    Edges are bins' starts: single tokens up to 32, then 4 % wide.
    """
    edges = np.array([int(edge) for edge in pdfs[name]])
    weight = np.array(list(pdfs[name].values()))
    start = rng.choice(edges, n, p=weight / weight.sum())
    width = np.maximum(1.0, 0.04 * start)
    return np.maximum(start + (rng.random(n) * width).astype(np.int64), 1)
