import torch


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    H, T, K = q.shape[1:]
    slopes = 2.0 ** (-8 * torch.arange(1, H + 1) / H)
    distance = torch.arange(T)[:, None] - torch.arange(T)
    scores = q @ k.transpose(-2, -1) / K**0.5 - slopes[:, None, None] * distance
    return scores.masked_fill(distance < 0, -torch.inf).softmax(dim=-1) @ v
