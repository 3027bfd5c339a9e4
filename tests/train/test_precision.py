"""Which precision is taken on which device, and what it does to float32 products."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from mimsuite.errors import UserError
from mimsuite.train.precision import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def _kept() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_float32_products_are_exact_but_in_tf32(name):
    for chosen, rounded in (("tf32", True), (name, False)):
        Precision(chosen, CUDA)
        assert torch.backends.cudnn.allow_tf32 is rounded
        assert torch.get_float32_matmul_precision() == ("high" if rounded else "highest")


def test_only_a_gpu_changes_float32_products():
    torch.backends.cudnn.allow_tf32 = True
    Precision("fp32", CPU)
    assert torch.backends.cudnn.allow_tf32 is True


@pytest.mark.parametrize("native", [False, True])
def test_emulated_bf16_is_not_chosen(native, monkeypatch):
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or native

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert Precision("auto", CUDA).name == ("bf16" if native else "fp32")


@pytest.mark.parametrize("name", ["tf32", "fp16"])
def test_what_only_gpus_have_is_refused_elsewhere(name):
    with pytest.raises(UserError, match=f"train.precision={name} needs a CUDA device, not cpu"):
        Precision(name, CPU)


def test_tf32_is_no_autocast():
    tf32, bf16 = Precision("tf32", CUDA), Precision("bf16", CPU)
    assert tf32.half is None
    assert bf16.half is torch.bfloat16
    with tf32.autocast():
        assert not torch.is_autocast_enabled("cuda")
