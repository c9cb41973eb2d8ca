"""Settings of models that several tests use."""

from __future__ import annotations

# What Hugging Face's NanoChatForCausalLM can hold, shape aside. Norms without gain, also after the
# embedding; eps, activation and cap are that class's own.
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
