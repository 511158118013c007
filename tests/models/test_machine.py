"""Devices, precisions and memory of the machine at hand."""

import subprocess
import sys

import pytest
import torch

from rein.errors import UserError
from rein.models.machine import autocast, peak_rss_bytes, resolve_device, resolve_precision


def test_auto_is_a_device_that_works():
    assert torch.ones(2, device=resolve_device("auto")).sum() == 2


@pytest.mark.parametrize("name", ["cuda:99", "abacus", "cpu:x"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(UserError, match=f"--device {name} cannot be used"):
        resolve_device(name)


def test_precision():
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == "fp32"
    assert resolve_precision("bf16", cpu) == "bf16"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert resolve_precision("auto", cpu) == ("bf16" if native else "fp32")
    a = torch.ones(2, 2)
    with autocast(cpu, "bf16"):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(cpu, "fp32"):
        assert (a @ a).dtype == torch.float32


def test_peak_memory_is_in_bytes():
    before = peak_rss_bytes()
    assert before > 50e6
    torch.ones(50_000_000).sum()
    assert peak_rss_bytes() >= before


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator is asked")
def test_freed_memory_is_kept():
    program = """if True:
        import resource, torch
        from rein.models.machine import keep_freed_memory
        keep_freed_memory()
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            torch.ones(5_000_000).sum()
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        counts = [faults() for _ in range(20)]  # the first few grow the heap
        assert counts[-1] < counts[0] / 10, counts
    """
    subprocess.run([sys.executable, "-c", program], check=True)
