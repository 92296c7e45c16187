"""Samplers: what needs the whole row of logits. Temperatures, truncations, and their order."""

from controllers.samplers.adaptive import AdaptiveP
from controllers.samplers.core import Sampler, Shaped
from controllers.samplers.heat import DynaTemp, Edt, Tempered
from controllers.samplers.mirostat import MirostatV1, MirostatV2
from controllers.samplers.pipeline import Pipeline
from controllers.samplers.solve import DeadBeat, EntropixTempTune
from controllers.samplers.truncation import MinP, TopK, TopNSigma, TopP

__all__ = [
    "AdaptiveP",
    "DeadBeat",
    "DynaTemp",
    "Edt",
    "EntropixTempTune",
    "MinP",
    "MirostatV1",
    "MirostatV2",
    "Pipeline",
    "Sampler",
    "Shaped",
    "Tempered",
    "TopK",
    "TopNSigma",
    "TopP",
]
