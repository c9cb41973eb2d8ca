import torch


def probabilities(logits_V: torch.Tensor, temperature: float, top_k: int) -> torch.Tensor:
    if temperature == 0:
        temperature, top_k = 1.0, 1
    logits_V = logits_V / temperature
    if 0 < top_k < len(logits_V):
        logits_V[logits_V < logits_V.topk(top_k).values[-1]] = -torch.inf
    return logits_V.softmax(dim=0)
