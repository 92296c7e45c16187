"""Live replies for the demo: the built-in prompts on the real model, under ``full``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from controllers.core import require
from controllers.presets import get_preset
from controllers.serving.ledger import COMPLETED
from traces.prompts import BUILTIN

PRESET = "full"
USER_TEMPERATURE = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One prompt, what the model said, and what the laws did meanwhile.

    Means are over tokens, None where nothing was sampled.
    """

    task_class: str
    prompt: str
    text: str
    tokens: int
    finish_reason: str
    entropy_nats: float | None
    temperature: float | None
    coverage: float | None

    @property
    def failed(self) -> bool:
        """Whether the request ended otherwise than by a stop token or its limit."""
        return self.finish_reason not in COMPLETED


def generate_replies(
    *,
    max_tokens: int,
    target_nats: float,
    seed: int,
    n_prompts: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Reply]:
    """Answer the built-in prompts in one batch; ``n_prompts`` takes them spread over classes."""
    require(max_tokens >= 1, "max_tokens must be >= 1", max_tokens=max_tokens)
    try:
        from backend.live import GenerateOptions, generate_texts
        from backend.params import SamplingParams
    except ImportError as error:
        message = f"the live model needs the backend extra (pip install '.[backend]'); {error}"
        raise ValueError(message) from error
    stride = 1 if n_prompts is None else max(1, len(BUILTIN) // n_prompts)
    chosen = BUILTIN[::stride]
    params = SamplingParams(
        max_tokens=max_tokens, temperature=USER_TEMPERATURE, target_nats=target_nats, seed=seed
    )
    rows, _ = generate_texts(
        [prompt.text for prompt in chosen],
        get_preset(PRESET),
        params,
        model=None,
        options=GenerateOptions(),
        progress=progress,
    )
    return [
        Reply(
            task_class=prompt.task_class,
            prompt=prompt.text,
            text=str(row["text"]).strip(),
            tokens=_integer(row["tokens"]),
            finish_reason=str(row["finish_reason"]),
            entropy_nats=_mean(row["entropy_nats"]),
            temperature=_mean(row["temperature_mean"]),
            coverage=_mean(row["coverage"]),
        )
        for prompt, row in zip(chosen, rows, strict=True)
    ]


def reply_text(reply: Reply) -> str:
    """Return a reply for the terminal."""
    return (
        f"> {reply.prompt}\n{reply.text}\n"
        f"[{reply.task_class}, {reply.tokens} tokens, {reply.finish_reason}{control_text(reply)}]\n"
    )


def control_text(reply: Reply) -> str:
    """Return what the laws did, ready to follow the finish reason; nothing without a token."""
    if reply.entropy_nats is None or reply.temperature is None or reply.coverage is None:
        return ""
    return (
        f": mean H {reply.entropy_nats:.2f} nats, mean T {reply.temperature:.2f}, mean coverage "
        f"{reply.coverage:.3f}"
    )


def _mean(value: object) -> float | None:
    assert value is None or isinstance(value, int | float)
    return None if value is None else float(value)


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value
