import torch


def rotate(x_TK: torch.Tensor) -> torch.Tensor:
    T, K = x_TK.shape
    frequencies = 10000.0 ** (-2 * torch.arange(K // 2) / K)
    angles = torch.arange(T)[:, None] * frequencies
    a, b = x_TK[:, : K // 2], x_TK[:, K // 2 :]
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=1)
