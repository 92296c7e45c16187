"""What the printed sign does: temperature and entropy over tokens under three presets."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from controllers.serving.ledger import Ledger
from controllers.temperature import X_MAX, X_MIN
from reports.style import COLOURS, INK, MUTED, PAPER, new_figure, styled

THIN_LINES = 3
FEWEST = 0.2  # a quartile band needs this share of the requests still running
HEAD = 1.25  # room above the highest quartile
TITLES = {
    "baseline": "baseline: the user's T",
    "full": "full: heats when H is low",
    "seed": "seed: the sign as printed",
}


def sign_error(ledgers: Mapping[str, Ledger], *, target_nats: float, footer: str) -> Figure:
    """Draw T and H at the applied T by generated token, one column per preset of ``TITLES``."""
    shown = [name for name in TITLES if name in ledgers]
    with styled():
        figure = new_figure(9.6, 5.0, footer)
        axes = figure.subplots(2, len(shown), sharex=True, sharey="row", squeeze=False)
        top = target_nats
        for column, name in enumerate(shown):
            temperature, entropy = _by_request(ledgers[name])
            _lines(axes[0, column], temperature, COLOURS[name])
            top = max(top, _lines(axes[1, column], entropy, COLOURS[name]))
            axes[0, column].set_title(TITLES[name])
            axes[1, column].set_xlabel("generated tokens")
            axes[1, column].axhline(target_nats, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            for bound in (X_MIN, X_MAX):
                axes[0, column].axhline(
                    np.exp(bound), color=INK, linewidth=1.0, linestyle=(0, (1, 2))
                )
        axes[0, 0].set_ylabel("temperature T")
        axes[1, 0].set_ylabel("entropy at T, nats")
        axes[0, 0].set_ylim(0.0, 1.1 * np.exp(X_MAX))
        axes[1, 0].set_ylim(0.0, HEAD * top)
        for axis, text, height in (
            (axes[0, 0], "clips", np.exp(X_MAX)),
            (axes[1, 0], "set-point H*", target_nats),
        ):
            axis.annotate(
                text, (1.0, height), xycoords=("axes fraction", "data"), ha="right", va="top",
                xytext=(-2, -3), textcoords="offset points", fontsize=8, color=INK,
                bbox=dict(PAPER),
            )  # fmt: skip
        return figure


def _by_request(ledger: Ledger) -> tuple[np.ndarray, np.ndarray]:
    """Return T and H as ``[requests, tokens]``, NaN after a request's end, longest first."""
    ids, positions = ledger.tokens["request_id"], ledger.tokens["position"]
    _, lane = np.unique(ids, return_inverse=True)
    shape = (int(lane.max(initial=-1)) + 1, int(positions.max(initial=-1)) + 1)
    temperature, entropy = np.full(shape, np.nan), np.full(shape, np.nan)
    temperature[lane, positions] = np.exp(ledger.tokens["command"])
    entropy[lane, positions] = ledger.tokens["h_applied"]
    order = np.argsort(-np.isfinite(entropy).sum(axis=1), kind="stable")
    return temperature[order], entropy[order]


def _lines(axis: Axes, values: np.ndarray, colour: str) -> float:
    """Draw band, single requests and median; return the highest upper quartile."""
    alive = np.isfinite(values).sum(axis=0) >= max(1.0, FEWEST * len(values))
    token = np.arange(values.shape[1])[alive]
    low, middle, high = np.nanpercentile(values[:, alive], [25, 50, 75], axis=0)
    axis.fill_between(token, low, high, color=colour, alpha=0.22, linewidth=0)
    for line in values[:THIN_LINES]:
        axis.plot(line, color=MUTED, linewidth=0.5, alpha=0.7)
    axis.plot(token, middle, color=colour, linewidth=2.0)
    return float(high.max(initial=0.0))
