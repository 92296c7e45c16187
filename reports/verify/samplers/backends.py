"""Rules that need torch: numpy and torch agree, and no value is read."""

from __future__ import annotations

from typing import Any

from reports.verify.contract.signals import leaves, to_torch
from reports.verify.contract.trial import ensure
from reports.verify.samplers.compare import ensure_close, outputs
from reports.verify.samplers.scene import SamplerTrial, Scene, run, scene_of

AGREES = 1e-5  # relative above one: exp, log and sums over a row round differently


def libraries_agree(sampler: Any, trial: SamplerTrial) -> None:
    """numpy and torch give the same rows, ln T and states to 1e-5, in float64."""
    # In float32 a token at an edge may fall on either side of it, and both are right.
    scene = scene_of(trial).wide()
    ours = run(sampler, scene)
    theirs = _run_in_torch(sampler, scene, ours.tokens)
    for step, (shaped, state) in enumerate(theirs):
        want = (outputs(ours.shaped[step]), ours.states[step + 1])
        got = (_numpy(outputs(shaped)), _numpy(state))
        ensure_close(got, want, "numpy and torch differ", step, AGREES)


def is_branch_free(sampler: Any, trial: SamplerTrial) -> None:
    """The sampler runs on torch's meta device, where no value can be read."""
    scene = scene_of(trial)
    tokens = run(sampler, scene).tokens
    for shaped, state in _run_in_torch(sampler, scene, tokens, "meta"):
        here = [*outputs(shaped), *leaves(state)]
        ensure(all(str(x.device) == "meta" for x in here), "an array left the device")


def _run_in_torch(
    sampler: Any, scene: Scene, tokens: list[Any], device: str = "cpu"
) -> list[tuple[Any, Any]]:
    state, done = sampler.init(to_torch(scene.signals[0], device)), []
    for logits, signal, token in zip(scene.logits, scene.signals, tokens, strict=True):
        shaped = sampler.shape(state, to_torch(logits, device), to_torch(signal, device))
        state = sampler.accept(state, shaped, to_torch(token, device))
        done.append((shaped, state))
    return done


def _numpy(tree: Any) -> tuple[Any, ...]:
    return tuple(leaf.numpy() for leaf in leaves(tree))
