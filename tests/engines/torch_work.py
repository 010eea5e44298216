"""A function of shards whose module loads torch, which takes a worker seconds."""

from collections.abc import Callable

import torch


def threads(*, report: Callable[[float], None], stop: Callable[[], bool]) -> tuple[int, torch.dtype]:
    return torch.get_num_threads(), torch.get_default_dtype()
