"""The serving core: one request state machine, page pool, scheduler and loop for both worlds."""

from controllers.serving.ledger import Ledger
from controllers.serving.limits import EngineLimits
from controllers.serving.loop import ServingLoop
from controllers.serving.messages import Executor, Plan, Result, Row
from controllers.serving.metrics import summarise
from controllers.serving.pages import HOLE, PageError, PagePool
from controllers.serving.prefix import page_hashes
from controllers.serving.request import Request, Sequence, Status
from controllers.serving.runlog import (
    CommandParity,
    PlanParity,
    read_log,
    replay_commands,
    replay_plans,
    write_log,
)
from controllers.serving.watchdog import Livelock

__all__ = [
    "HOLE",
    "CommandParity",
    "EngineLimits",
    "Executor",
    "Ledger",
    "Livelock",
    "PageError",
    "PagePool",
    "Plan",
    "PlanParity",
    "Request",
    "Result",
    "Row",
    "Sequence",
    "ServingLoop",
    "Status",
    "page_hashes",
    "read_log",
    "replay_commands",
    "replay_plans",
    "summarise",
    "write_log",
]
