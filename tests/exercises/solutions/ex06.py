import torch


def attention(q_TK: torch.Tensor, k_TK: torch.Tensor, v_TK: torch.Tensor) -> torch.Tensor:
    T, K = q_TK.shape
    scores_TT = q_TK @ k_TK.T / K**0.5
    future_TT = torch.ones(T, T).tril() == 0
    return scores_TT.masked_fill(future_TT, -torch.inf).softmax(dim=-1) @ v_TK
