"""Do every piece of an evaluation that its file does not hold yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

from backend.models import LoadedModel
from backend.params import SamplingParams
from controllers.core import require
from controllers.preset import Preset
from controllers.presets import get_preset
from reports.evaluation.example import Example
from reports.evaluation.fidelity import reply_row, sampled_row
from reports.evaluation.forced import ForcedScorer
from reports.evaluation.free import Arm, free_row
from reports.evaluation.rows import RowFile
from reports.evaluation.settings import Setting

BASELINE = "baseline"
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FreePlan:
    """Free generation: which presets beside ``baseline``, and the replies to each example."""

    preset: Preset
    seeds: int
    temperature: float
    target_nats: float

    def __post_init__(self) -> None:
        require(self.seeds >= 1, "seeds must be >= 1", seeds=self.seeds)

    @property
    def arms(self) -> tuple[Preset, ...]:
        """The presets to compare, ``baseline`` first."""
        others = () if self.preset.name == BASELINE else (self.preset,)
        return (get_preset(BASELINE), *others)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForcedPlan:
    """Forced scoring: which settings, on how many tokens, continued at which temperature."""

    settings: tuple[Setting, ...]
    max_tokens: int
    temperature: float
    seed: int
    texts: tuple[str, ...] = ("reply", "sampled")


def run_forced(
    file: RowFile, loaded: LoadedModel, examples: Sequence[Example], plan: ForcedPlan,
    progress: Progress,
) -> None:  # fmt: skip
    """Score each example's texts under every setting; one row per text, key ``KEY/forced/TEXT``."""
    prompts = {example.key: loaded.encode_chat(example.prompt) for example in examples}
    context = max(map(len, prompts.values()))
    scorer: ForcedScorer | None = None
    for done, example in enumerate(examples):
        progress(done, len(examples))
        texts = [text for text in plan.texts if text == "sampled" or example.reply]
        missing = [text for text in texts if f"{example.key}/forced/{text}" not in file]
        if not missing:
            continue
        scorer = scorer or ForcedScorer(
            loaded, plan.settings, context=context, max_tokens=plan.max_tokens
        )
        scorer.prefill(prompts[example.key])
        for text in missing:
            row = (
                reply_row(scorer, example)
                if text == "reply"
                else sampled_row(scorer, example, temperature=plan.temperature, seed=plan.seed)
            )
            file.add(f"{example.key}/forced/{text}", row)
    progress(len(examples), len(examples))


def run_free(
    file: RowFile, loaded: LoadedModel, examples: Sequence[Example], plan: FreePlan,
    progress: Progress,
) -> None:  # fmt: skip
    """Generate each example's replies in every arm; one row per reply, key ``KEY/ARM/SEED``."""
    longest = max(len(loaded.encode_chat(example.prompt)) for example in examples)
    most = max(example.max_tokens for example in examples)
    total, done = len(plan.arms) * len(examples), 0
    for preset in plan.arms:
        with ExitStack() as stack:
            arm: Arm | None = None
            for example in examples:
                progress(done, total)
                done += 1
                seeds = [s for s in range(plan.seeds) if _key(example, preset.name, s) not in file]
                if not seeds:
                    continue
                if arm is None:
                    arm = stack.enter_context(closing(Arm(
                        loaded, preset, context=longest, max_tokens=most, seeds=plan.seeds
                    )))  # fmt: skip
                params = [_params(plan, example, seed) for seed in seeds]
                outputs = arm.replies(loaded.encode_chat(example.prompt), params)
                for seed, output in zip(seeds, outputs, strict=True):
                    key = _key(example, preset.name, seed)
                    file.add(key, free_row(example, preset.name, seed, output))
    progress(total, total)


def _key(example: Example, arm: str, seed: int) -> str:
    return f"{example.key}/{arm}/{seed}"


def _params(plan: FreePlan, example: Example, seed: int) -> SamplingParams:
    return SamplingParams(
        temperature=plan.temperature,
        max_tokens=example.max_tokens,
        seed=seed,
        target_nats=plan.target_nats,
    )
