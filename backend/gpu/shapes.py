"""The shapes of decoders that the device runner can hold: facts from their published configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controllers.core import require


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """A pre-norm decoder with rotary positions, grouped queries and a gated SiLU MLP."""

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    rope_theta: float
    eps: float
    tied: bool = False  # the output layer is the embedding
    head_norms: bool = False  # queries and keys are normalised per head (Qwen3)

    def __post_init__(self) -> None:
        for field in ("layers", "hidden", "kv_heads", "head_dim", "intermediate", "vocabulary"):
            require(getattr(self, field) >= 1, f"{field} must be >= 1", got=getattr(self, field))
        require(
            self.heads >= 1 and self.heads % self.kv_heads == 0,
            "heads must be a multiple of kv_heads",
            heads=self.heads,
            kv_heads=self.kv_heads,
        )
        require(self.head_dim % 2 == 0, "head_dim must be even", head_dim=self.head_dim)

    @property
    def group(self) -> int:
        """Query heads per KV head."""
        return self.heads // self.kv_heads

    @property
    def parameters(self) -> int:
        """Numbers in the weights, tied ones once."""
        attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads)
        norms = 2 * self.hidden + 2 * self.head_dim * self.head_norms
        layer = attention + 3 * self.hidden * self.intermediate + norms
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + embeddings + self.hidden

    def kv_bytes_per_token(self, element: int) -> int:
        """Return the bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * element


_ALL = (
    DecoderShape(  # huggingface.co/meta-llama/Meta-Llama-3-8B, config.json
        name="llama-3-8b",
        layers=32,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=14336,
        vocabulary=128_256,
        rope_theta=5e5,
        eps=1e-5,
    ),
    DecoderShape(  # huggingface.co/Qwen/Qwen3-8B, config.json
        name="qwen3-8b",
        layers=36,
        hidden=4096,
        heads=32,
        kv_heads=8,
        head_dim=128,
        intermediate=12288,
        vocabulary=151_936,
        rope_theta=1e6,
        eps=1e-6,
        head_norms=True,
    ),
    DecoderShape(  # huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct, config.json
        name="smollm2-135m",
        layers=30,
        hidden=576,
        heads=9,
        kv_heads=3,
        head_dim=64,
        intermediate=1536,
        vocabulary=49_152,
        rope_theta=1e5,
        eps=1e-5,
        tied=True,
    ),
    DecoderShape(
        name="tiny",
        layers=2,
        hidden=64,
        heads=4,
        kv_heads=2,
        head_dim=16,
        intermediate=128,
        vocabulary=257,
        rope_theta=1e4,
        eps=1e-5,
    ),
)
SHAPES: Mapping[str, DecoderShape] = MappingProxyType({shape.name: shape for shape in _ALL})
