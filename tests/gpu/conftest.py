"""Every test here runs on the CPU, wherever that can show anything, and once more on CUDA."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def machine(request: pytest.FixtureRequest) -> torch.device:
    """A device for whole runs, which take longer."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return torch.device(request.param)


@pytest.fixture(
    params=[
        pytest.param("cpu", marks=pytest.mark.slow),
        pytest.param("cuda", marks=pytest.mark.gpu),
    ]
)
def two(request: pytest.FixtureRequest) -> list[str]:
    """Words that start two processes on two devices, and the like of one."""
    if request.param == "cuda":
        if torch.cuda.device_count() < 2:
            pytest.skip("needs two CUDA devices")
        return ["--gpus", "2"]
    return ["--procs", "2", "--device", "cpu"]
