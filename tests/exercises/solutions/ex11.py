import torch


class Cache:
    def __init__(self) -> None:
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []

    def step(self, q_K: torch.Tensor, k_K: torch.Tensor, v_K: torch.Tensor) -> torch.Tensor:
        self.keys.append(k_K)
        self.values.append(v_K)
        weights_T = (torch.stack(self.keys) @ q_K / len(q_K) ** 0.5).softmax(dim=0)
        return weights_T @ torch.stack(self.values)
