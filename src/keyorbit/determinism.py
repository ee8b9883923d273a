"""The same work, twice on the same GPU, gives the same bytes: torch's deterministic algorithms."""

import os


def compute_deterministically() -> None:
    """From here on, torch takes no algorithm that adds up in another order each time; call it before a GPU is used.

    The same work on the same device, with the same versions and as many processes, then gives the same bytes. An
    operation that has no such algorithm raises RuntimeError. On the CPU all this is so without it. It is for the whole
    process: torch knows one setting only, and cuBLAS reads its own once.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
