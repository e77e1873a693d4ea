from __future__ import annotations

import pytest

from tests.finetune.tiny import save_tiny_model, write_rows


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Threads that wait for each other cost tiny models more than they bring."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("finetune") / "tiny")


@pytest.fixture(scope="session")
def rows(model, tmp_path_factory):
    return write_rows(model, tmp_path_factory.mktemp("finetune") / "preferences.arrow", 12)
