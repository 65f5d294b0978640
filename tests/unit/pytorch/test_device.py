"""Each worker of a host gets a GPU of its own, or the CPU."""

from __future__ import annotations

import pytest
import torch

from headrace.errors import ConfigError
from headrace.pytorch.device import choose_device

HOSTS = ("a", "b", "a", "a")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_a_gpu_that_nobody_assigned_is_left_alone(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert choose_device(HOSTS, 0, is_required=False) == torch.device("cpu")


@pytest.mark.parametrize(("index", "gpu"), [(0, 0), (1, 0), (2, 1)])
def test_the_workers_of_one_host_take_one_gpu_each(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch, index: int, gpu: int
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert choose_device(HOSTS, index, is_required=False) == torch.device("cuda", gpu)


def test_more_workers_than_gpus_on_a_host_are_refused(two_gpus: None) -> None:
    with pytest.raises(ConfigError, match=r"Worker 3 is number 3 on its host.* 2 GPU"):
        choose_device(HOSTS, 3, is_required=True)


def test_a_required_gpu_that_is_not_there_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(ConfigError, match="finds no GPU here"):
        choose_device(HOSTS, 0, is_required=True)


def test_who_has_a_gpu_leased_sees_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("HEADRACE_LEASED_GPU", "3")
    assert choose_device(HOSTS, 2, is_required=False) == torch.device("cuda", 0)
