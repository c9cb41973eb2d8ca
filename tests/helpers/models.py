"""Model settings that several tests use."""

from __future__ import annotations

# The settings of Hugging Face's NanoChatForCausalLM, except its shape.
MODERN = {
    "bias": False,
    "position": "rope",
    "norm": "rmsnorm",
    "norm_gain": False,
    "norm_eps": 1e-6,
    "embedding_norm": True,
    "mlp": "relu2",
    "qk_norm": True,
    "tie_weights": False,
    "softcap": 15.0,
    "bigram_rows": 0,
    "pointer": False,
}
