import math


def lr_at(step: int, lr: float, warmup: int, max_steps: int) -> float:
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - (warmup - 1)) / (max_steps - 1 - (warmup - 1))
    return lr * 0.5 * (1 + math.cos(math.pi * progress))
