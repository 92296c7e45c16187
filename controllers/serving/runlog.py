"""The log of a run: written whole or not at all, read with checks, replayed for decision parity.

L1 parity (DESIGN section 2): a fresh loop driven by the logged events must make every logged plan,
and numpy must reproduce, bit for bit, every temperature command that the executor's laws issued.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from controllers.compose import Shadow
from controllers.core import require
from controllers.presets import Preset
from controllers.serving.lanes import LaneBank
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop, Sink
from controllers.serving.messages import Plan, Row
from controllers.serving.rows import (
    SCHEMA,
    VERSION,
    LogRow,
    hashes_from_row,
    plan_from_row,
    preset_settings,
    request_from_row,
    result_from_row,
)
from controllers.serving.scheduler import Scheduler
from controllers.steplaw import StepLaw

_SHOWN = 10  # differences kept in a report


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that a replay did not reproduce."""

    step: int
    field: str
    logged: object
    recomputed: object


@dataclass(frozen=True, slots=True)
class PlanParity:
    """Plans of a log against plans recomputed; ``differing`` holds the first few differences."""

    steps: int  # plans in the log
    compared: int  # plans recomputed; fewer than ``steps`` if the runs went different ways
    n_differing: int
    differing: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether every plan was compared and none differed."""
        return self.n_differing == 0 and self.compared == self.steps


@dataclass(frozen=True, slots=True)
class CommandParity:
    """Temperature commands of a log against numpy's, bit for bit."""

    commands: int  # lanes compared, shadow commands included
    n_differing: int
    differing: tuple[Difference, ...]

    @property
    def identical(self) -> bool:
        """Whether no command differed."""
        return self.n_differing == 0


def replay_plans(
    rows: Iterable[LogRow], preset: Preset, *, scheduler_type: type[Scheduler] = Scheduler
) -> PlanParity:
    """Drive a fresh loop by the logged events and compare every plan.

    Stops at the first plan whose sampled rows differ, for the logged result no longer fits it.
    ``scheduler_type`` must be the one that made the log, which does not name it.
    """
    source = iter(rows)
    header = _header(source, preset)
    limits = EngineLimits.from_json(header["limits"])
    oracle: dict[int, int] | None = {} if preset.priority.oracle else None
    step_law = StepLaw.from_json(header["step_law"])
    loop = ServingLoop(limits, preset, step_law, oracle=oracle, scheduler_type=scheduler_type)
    steps = compared = 0
    found: list[Difference] = []
    diverged = False
    for row in source:
        kind, now_ns = row["kind"], row["now_ns"]
        steps += kind == "plan"
        if diverged:
            continue
        match kind:
            case "submit":
                if oracle is not None:
                    oracle[row["request"]["request_id"]] = row["oracle_tokens"]
                loop.submit(request_from_row(row), now_ns, page_hashes=hashes_from_row(row))
            case "cancel":
                loop.cancel(row["request_id"], now_ns)
            case "disable":
                loop.disable(row["request_id"], now_ns)
            case "plan":
                logged, plan = plan_from_row(row), loop.plan(now_ns)
                found += _plan_differences(logged, plan)
                found += _service_differences(row, loop.client_service)
                compared += 1
                diverged = logged.sampled != plan.sampled or bool(logged.rows) != bool(plan.rows)
            case "result":
                loop.observe(result_from_row(row), now_ns)
            case "end":
                break
            case _:
                raise ValueError(f"log row of unknown kind {kind!r}")
    return PlanParity(steps, compared, len(found), tuple(found[:_SHOWN]))


def replay_commands(rows: Iterable[LogRow], preset: Preset) -> CommandParity:
    """Recompute every temperature command from the logged signals and compare bitwise.

    A shadowed law's commands are compared too, where the log has them.
    """
    source = iter(rows)
    _header(source, preset)
    law = preset.temperature
    bank = LaneBank(law)
    sampled: tuple[int, ...] = ()
    commands = 0
    found: list[Difference] = []
    for row in source:
        if row["kind"] == "plan":
            sampled = plan_from_row(row).sampled
        if row["kind"] != "result" or not sampled:
            continue
        result = result_from_row(row)
        pairs = [("command", result.commands, bank.update(sampled, result.signals))]
        if result.shadow is not None and isinstance(law, Shadow):
            pairs.append(("shadow", result.shadow, law.shadow_command(bank.lanes(sampled))))
        for name, logged, recomputed in pairs:
            commands += len(logged)
            for lane in _unequal_bits(logged, recomputed):
                field = f"{name} of request {sampled[lane]}"
                found.append(
                    Difference(result.step, field, float(logged[lane]), float(recomputed[lane]))
                )
    return CommandParity(commands, len(found), tuple(found[:_SHOWN]))


@contextmanager
def write_log(path: str | Path) -> Iterator[Sink]:
    """Give a sink whose rows go to ``path`` (gzipped JSON lines), closed by an "end" row.

    The file appears only when the block ends without an exception.
    """
    target = Path(path)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".part")
    count, last_ns = 0, 0
    try:
        with (
            os.fdopen(handle, "wb") as raw,
            gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=6, mtime=0) as packed,
            io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as text,
        ):

            def sink(row: LogRow) -> None:
                nonlocal count, last_ns
                text.write(json.dumps(row, separators=(",", ":")) + "\n")
                count, last_ns = count + 1, row["now_ns"]

            yield sink
            sink({"kind": "end", "now_ns": last_ns, "rows": count})
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def read_log(path: str | Path) -> list[LogRow]:
    """Return the rows of a log, header first, "end" last; ``ValueError`` names file and field."""
    rows: list[LogRow] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8") as text:
            for line in text:
                rows.append(json.loads(line))
                if len(rows) == 1:
                    _check_schema(rows[0], path)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{path}: truncated after {len(rows)} rows ({error})") from None
    except (gzip.BadGzipFile, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: row {len(rows) + 1} is not a log row ({error})") from None
    last = rows[-1] if rows else {}
    if last.get("kind") != "end" or last.get("rows") != len(rows) - 1:
        raise ValueError(f"{path}: truncated: no matching 'end' row after {len(rows)} rows")
    return rows


def _check_schema(row: LogRow, path: str | Path) -> None:
    for field, expected in (("kind", "header"), ("schema", SCHEMA), ("version", VERSION)):
        value = row.get(field) if isinstance(row, dict) else None
        if value != expected:
            raise ValueError(f"{path}: {field} must be {expected!r}; got {value!r}")


def _header(rows: Iterator[LogRow], preset: Preset) -> LogRow:
    """Take the header off a log and refuse a preset that did not make it."""
    header = next(rows, {})
    require(header.get("kind") == "header", "a log begins with its header", kind=header.get("kind"))
    logged = {**header["laws"], **header["preset"]}
    given = {**preset.fingerprints(), **preset_settings(preset)}
    for name, value in given.items():
        require(
            logged.get(name) == value,
            f"the preset's {name} must be the log's {logged.get(name)!r}",
            **{name: value},
        )
    return header


def _plan_differences(logged: Plan, plan: Plan) -> list[Difference]:
    found = [
        Difference(logged.step, name, getattr(logged, name), getattr(plan, name))
        for name in ("step", "preempted")
        if getattr(logged, name) != getattr(plan, name)
    ]
    if len(logged.rows) != len(plan.rows):
        found.append(Difference(logged.step, "rows", len(logged.rows), len(plan.rows)))
    for place, (a, b) in enumerate(zip(logged.rows, plan.rows, strict=False)):
        found += [
            Difference(logged.step, f"rows[{place}].{name}", before, after)
            for name, before, after in zip(Row._fields, a, b, strict=True)
            if before != after
        ]
    return found


def _service_differences(row: LogRow, service: dict[str, float]) -> list[Difference]:
    logged = row.get("service", service)  # absent where there was nobody to compare
    return [] if logged == service else [Difference(row["step"], "service", logged, service)]


def _unequal_bits(a: np.ndarray, b: np.ndarray) -> list[int]:
    """Return the lanes where two float32 arrays differ in any bit; two NaNs are equal."""
    require(
        a.dtype == b.dtype == np.float32, "commands must be float32", logged=a.dtype, law=b.dtype
    )
    unequal = a.view(np.uint32) != b.view(np.uint32)
    return np.flatnonzero(unequal & ~(np.isnan(a) & np.isnan(b))).tolist()
