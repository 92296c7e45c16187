"""Measure the step law of a live backend: staged steps of a grid, timed pass by pass and fitted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backend.models import LoadedModel, load
from backend.place import device_name, dtype_name
from backend.profile_fit import Fit, fit
from backend.profile_grid import stages
from backend.profile_points import Pass, Point, points_of, ranges_of
from backend.profile_rig import Rig
from backend.profile_stage import Stage
from backend.profile_store import PassStore
from backend.setup import PAGE_TOKENS, default_limits
from backend.sparse import SparseAttention
from controllers.core import require
from traces.builtin import BUILTIN_TEXTS
from traces.profile import Profile, write_profile
from traces.profiles_plot import plot_residuals

Progress = Callable[[int, int], None]
POOL_TOKENS = 65536  # largest decode batch x context that is timed, 3 GB for SmolLM2


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """The range that is served, and how often each of its steps is timed."""

    repeats: int = 7  # passes over the grid
    max_seqs: int = 16
    max_context: int = 2048  # tokens
    token_budget: int = 512
    coverages: tuple[float, ...] = (0.8, 0.95, 0.99)  # of rows that prune; none: not priced
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("max_seqs", 1), ("max_context", 128)):
            value = getattr(self, name)
            require(value >= least, f"{name} must be >= {least}", **{name: value})
        budget = self.token_budget
        require(
            16 <= budget <= self.max_context and budget > self.max_seqs,
            "token_budget must be >= 16, above max_seqs and within max_context",
            token_budget=budget,
        )
        for coverage in self.coverages:
            require(0.0 < coverage < 1.0, "coverages must lie in (0, 1)", coverages=coverage)


@dataclass(frozen=True, slots=True)
class Measured:
    """A profile, and the points behind it with the law's held-out seconds of each."""

    profile: Profile
    points: list[Point]
    held_out_s: np.ndarray  # [N]

    def write(self, out: Path) -> None:
        """Write the profile to ``out`` and a figure of its held-out residuals beside it."""
        error = self.profile.fit_error["held_out_mean_abs_pct"]
        plot_residuals(
            out.with_name(f"{out.stem}_residuals.png"),
            kinds=[point.kind for point in self.points],
            measured_s=np.array([point.seconds for point in self.points]),
            predicted_s=self.held_out_s,
            title=f"{self.profile.model}, {self.profile.device}: {error:.1f} %",
        )
        write_profile(out, self.profile)


def run_profile(
    options: ProfileOptions,
    store: Callable[[dict[str, Any]], PassStore],
    *,
    model: str | LoadedModel | None,
    commit: str,
    created: str,
    versions: dict[str, str],
    progress: Progress | None = None,
) -> Measured:
    """Time the grid on the live model and fit the step law.

    ``store`` opens the passes taken so far by what is measured; those are not taken again.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    grid = grid_of(loaded, options)
    made = {"commit": commit, "versions": versions}
    kept = store(header_of(loaded, options, grid, **made))
    _measure(loaded, grid, options, kept, progress)
    return conclude(
        loaded,
        options,
        kept.passes[: options.repeats],
        how=f"entropic profile run: {len(grid)} stages x {options.repeats} passes",
        created=created,
        **made,
    )


def grid_of(loaded: LoadedModel, options: ProfileOptions) -> list[Stage]:
    """Return the stages to time on this model; ``ValueError`` for contexts beyond the model's."""
    require(
        options.max_context <= loaded.max_context,
        f"max_context must be <= {loaded.max_context}, the model's",
        max_context=options.max_context,
    )
    return stages(
        max_seqs=options.max_seqs,
        max_context=options.max_context,
        token_budget=options.token_budget,
        pool_tokens=_pool_tokens(options),
        coverages=options.coverages,
    )


def header_of(
    loaded: LoadedModel,
    options: ProfileOptions,
    grid: Sequence[Stage],
    *,
    commit: str,
    versions: dict[str, str],
) -> dict[str, Any]:
    """Return what is measured, by which a store of passes is known; more passes may be added."""
    what = asdict(options)
    del what["repeats"]
    return {
        **what,
        "model": loaded.name,
        "weights_sha256": loaded.weights_sha256,
        "device": device_name(loaded.device),
        "dtype": dtype_name(loaded.dtype),
        "commit": commit,
        "versions": versions,
        "stages": len(grid),
    }


def conclude(
    loaded: LoadedModel,
    options: ProfileOptions,
    passes: Sequence[Pass],
    *,
    how: str,
    commit: str,
    created: str,
    versions: dict[str, str],
) -> Measured:
    """Fit the step law to timed passes; ``how`` says in the profile how they were taken."""
    points = points_of(passes)
    fitted = fit(points, np.random.default_rng(options.seed))
    limits = default_limits(
        loaded,
        max_seqs=options.max_seqs,
        token_budget=options.token_budget,
        pool_tokens=POOL_TOKENS,
    )
    profile = Profile(
        device=device_name(loaded.device),
        model=loaded.name,
        backend="torch, paged attention, timed in the serving loop",
        dtype=dtype_name(loaded.dtype),
        commit=commit,
        created=created,
        versions=versions,
        ranges=ranges_of(points),
        fit_error=fitted.fit_error,
        step_law=fitted.law.to_json(),
        limits=limits.to_json(),
        source=f"{how}, {_spread(fitted)}",
        sparse_from_tokens=SparseAttention().from_tokens(limits.page_tokens),
    )
    return Measured(profile, points, fitted.held_out_s)


@contextmanager
def staged(loaded: LoadedModel, options: ProfileOptions, grid: Sequence[Stage]) -> Iterator[Rig]:
    """Yield a rig whose cache is filled and which has taken its first steps: those are slow."""
    limits = default_limits(
        loaded,
        max_seqs=options.max_seqs + 1,  # a full batch, and a prompt beside it
        token_budget=options.token_budget,
        pool_tokens=_pool_tokens(options),
    )
    with Rig(loaded, limits) as rig:
        rig.fill(_text(loaded, min(options.max_context, limits.n_pages * limits.page_tokens)))
        for stage in (grid[0], grid[len(grid) // 2], grid[-1]):
            rig.time(stage)
        yield rig


def _measure(
    loaded: LoadedModel,
    grid: list[Stage],
    options: ProfileOptions,
    store: PassStore,
    progress: Progress | None,
) -> None:
    """Add passes to ``store`` until there are enough.

    Each pass takes the stages in an order of its own, so that a slow spell of the machine touches
    every stage alike.
    """
    taken = len(store.passes)
    if taken >= options.repeats:
        return
    with staged(loaded, options, grid) as rig:
        for number in range(taken, options.repeats):
            steps: list[Any] = [None] * len(grid)
            for done, index in enumerate(order_of(options, len(grid), number)):
                steps[index] = rig.time(grid[index])
                if progress is not None:
                    progress(number * len(grid) + done + 1, options.repeats * len(grid))
            store.add(steps)


def order_of(options: ProfileOptions, n_stages: int, number: int) -> list[int]:
    """Return the order in which a pass visits the stages."""
    return np.random.default_rng((options.seed, number)).permutation(n_stages).tolist()


def _pool_tokens(options: ProfileOptions) -> int:
    return min(POOL_TOKENS, (options.max_seqs + 1) * (options.max_context + PAGE_TOKENS))


def _text(loaded: LoadedModel, length: int) -> list[int]:
    """Return ``length`` tokens of our own prompts, over and over in changing order."""
    rng, ids = np.random.default_rng(0), []
    while len(ids) < length:
        for index in rng.permutation(len(BUILTIN_TEXTS)).tolist():
            ids.extend(loaded.tokenizer(BUILTIN_TEXTS[index][1] + "\n\n").input_ids)
    return ids[:length]


def _spread(fitted: Fit) -> str:
    return (
        "each step timed in the serving loop from plan to plan, repeats within "
        f"{fitted.fit_error['repeat_spread_pct']:.1f} % (interquartile)"
    )
