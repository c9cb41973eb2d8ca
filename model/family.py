"""The modern family of models: the settings that Hugging Face's NanoChatForCausalLM can hold."""

from __future__ import annotations

from model.config import ModelConfig

# Shape aside. Norms without gain, also after the embedding; queries and keys are normed after RoPE
# there, which without gain is the same as before it. eps, activation and cap are that class's own.
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


def beyond_modern(config: ModelConfig) -> list[str]:
    """The settings by which a model is more, less or other than the modern family.

    >>> beyond_modern(ModelConfig(**MODERN, n_layer=2)), beyond_modern(ModelConfig())[:2]
    ([], ['norm', 'norm_gain'])
    """
    return [name for name, value in MODERN.items() if getattr(config, name) != value]
