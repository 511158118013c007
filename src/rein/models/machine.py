"""The machine a model runs on: device, precision, memory."""

from __future__ import annotations

import ctypes
import resource
import sys

import torch

from rein.errors import UserError


def resolve_device(name: str) -> torch.device:
    """The device of that name; `auto` is a GPU where there is one.

    Raises   UserError when the device does not exist here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used: {reason}.", "Use --device cpu.") from None
    return device


def resolve_precision(name: str, device: torch.device) -> str:
    """`auto` is "bf16" where the hardware multiplies bfloat16 natively, else "fp32"."""
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if device.type == "cpu" and native else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a forward pass runs: matrix products in bfloat16, or everything in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def keep_freed_memory() -> None:
    """Asks the C library to keep freed memory for the next tensor instead of giving it back to the system.

    A training step frees and allocates the same large tensors again and again; getting fresh pages from the system
    for each costs 4 to 8% of a step on a CPU (docs/log.md). Does nothing where there is no glibc.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            m_trim_threshold, m_mmap_threshold = -1, -3
            mallopt(m_mmap_threshold, 1 << 30)
            mallopt(m_trim_threshold, (1 << 31) - 1)


def peak_rss_bytes() -> int:
    """The largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
