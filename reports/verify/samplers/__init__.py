"""The contract of a sampler, as properties: what any sampler must keep, whoever wrote it."""

from reports.verify.samplers.properties import PROPERTIES, SamplerProperty

__all__ = ["PROPERTIES", "SamplerProperty"]
