from __future__ import annotations

import pytest
import torch

from raysae.models.memory import is_out_of_memory


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("can't allocate memory"), False),
    ],
)
def test_who_is_short_of_memory(error: Exception, refused: bool) -> None:
    assert is_out_of_memory(error) is refused


def test_torch_says_so_of_the_host() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
