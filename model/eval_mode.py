"""Access to the plain module behind wrappers, and a context manager for eval mode."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside torch.compile and DistributedDataParallel, however they are nested.

    Our training uses no DistributedDataParallel, but code that imports these modules may. State
    dicts and attributes are read from the module returned, so no stored key names a wrapper.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile
        if isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into eval mode inside the `with`; then restore each submodule's mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
