from torch import Tensor


def adamw(
    weight: Tensor, grad: Tensor, m: Tensor, v: Tensor, step: int, lr: float, decay: float
) -> tuple[Tensor, Tensor, Tensor]:
    beta1, beta2, eps = 0.9, 0.95, 1e-8
    m = beta1 * m + (1 - beta1) * grad
    v = beta2 * v + (1 - beta2) * grad**2
    mean, square = m / (1 - beta1**step), v / (1 - beta2**step)
    return weight * (1 - lr * decay) - lr * mean / (square.sqrt() + eps), m, v
