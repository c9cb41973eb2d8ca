import torch


def loss(logits_NV: torch.Tensor, targets_N: torch.Tensor) -> torch.Tensor:
    chosen_N = logits_NV[torch.arange(len(targets_N)), targets_N]
    return (logits_NV.logsumexp(dim=1) - chosen_N).mean()
