"""Every law on numpy and on the device over the same signals: equal bits, or how far off."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from controllers.compose import Chain, Delay, Gated, RateLimit, delayed
from controllers.core import Law, replay, tree_map
from controllers.coverage import EntropyCoverage, FixedCoverage, SeedCoverage
from controllers.ops import Array
from controllers.peers import PEERS
from controllers.presets import PRESETS
from controllers.priority import EntropyPriority, Fcfs, SeedPriority
from controllers.smoothed import SmoothedFeedback
from controllers.temperature import (
    EntropyFeedback,
    FeedforwardNewton,
    FixedTemperature,
    SeedLiteral,
)
from reports.gpu.place import Place
from reports.gpu.record import Record
from reports.verify.contract.signals import extreme, load_signals, token_signals

STEPS, LANES = 64, 1024
MOST_ULP = 0  # what DESIGN promises on CPU; the row says what a GPU gives

TOKEN_LAWS: tuple[Law, ...] = (
    FixedTemperature(),
    EntropyFeedback(),
    EntropyFeedback(c=float("inf"), rate=float("inf")),
    SeedLiteral(),
    FeedforwardNewton(),
    SmoothedFeedback(),
    delayed(SeedLiteral(), 1),
    Chain(law=FeedforwardNewton(), filters=(RateLimit(rate=0.1), Delay(steps=2))),
    Gated(law=EntropyFeedback()),
    FixedCoverage(coverage=0.9),
    EntropyCoverage(),
    EntropyCoverage(p_min=0.8, p_max=1.0, dwell=1, rate=0.1),
    SeedCoverage(),
    *(preset.temperature for preset in PRESETS.values()),
    *(preset.coverage for preset in PRESETS.values()),
)
LOAD_LAWS: tuple[Law, ...] = (
    Fcfs(),
    EntropyPriority(),
    SeedPriority(),
    *(preset.priority for preset in (*PRESETS.values(), *PEERS.values())),
)


def law_parity(place: Place, record: Record) -> None:
    """Replay every law once; a row per law that is not exact, and one for all."""
    steps, lanes = (6, 32) if place.dry else (STEPS, LANES)
    token, load = token_signals(steps, lanes), load_signals(steps, lanes)
    token += [_extreme(signal, seed) for seed, signal in enumerate(token[:4])]
    load += [_extreme(signal, seed) for seed, signal in enumerate(load[:4])]
    worst, checked, seen = 0, 0, set[str]()
    for laws, signals in ((TOKEN_LAWS, token), (LOAD_LAWS, load)):
        moved = [tree_map(lambda leaf: _moved(leaf, place), signal) for signal in signals]
        for law in laws:
            if repr(law) in seen:
                continue
            seen.add(repr(law))
            host, device = replay(law, signals), replay(law, moved).cpu().numpy()
            ulp = ulps(host, device)
            checked += 1
            worst = max(worst, ulp)
            if ulp > MOST_ULP:
                differing = int((host.view(np.int32) != device.view(np.int32)).sum())
                record.add("law_off", law=repr(law), largest_ulp=ulp, lanes=differing)
    record.add(
        "law_parity",
        passed=worst <= MOST_ULP,
        laws=checked,
        lanes=lanes,
        steps=len(token),
        largest_ulp=worst,
    )


def ulps(a: np.ndarray, b: np.ndarray) -> int:
    """Return the largest distance of two float32 arrays in units in the last place.

    NaN is at distance 0 from NaN and 2^32 from anything else.
    """
    missing = np.isnan(a) != np.isnan(b)
    if bool(missing.any()):
        return 1 << 32
    known = ~np.isnan(a)
    order = [_ordered(part[known]) for part in (a, b)]
    return int(np.abs(order[0] - order[1]).max(initial=0))


def _ordered(x: np.ndarray) -> np.ndarray:
    """Return integers that lie as the floats do, with one number for both zeros."""
    bits = x.astype(np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def _moved(leaf: Array, place: Place) -> torch.Tensor:
    return torch.from_numpy(np.array(leaf, np.float32)).to(place.device)


def _extreme(signal: Any, seed: int) -> Any:
    return extreme(signal, seed)
