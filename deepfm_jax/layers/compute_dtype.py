"""What ``compute_dtype="auto"`` means on a device."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax

COMPUTE_DTYPES = ("float32", "bfloat16", "auto")
# Linux's flags of x86 extensions that multiply bfloat16, and the names of the extensions.
_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}
_CPUINFO = pathlib.Path("/proc/cpuinfo")
# The first NVIDIA generation whose tensor cores multiply bfloat16 (Ampere).
_AMPERE = (8, 0)


class ComputeDtype(NamedTuple):
    """The dtype of matrix products, ``"float32"`` or ``"bfloat16"``, and why it was chosen."""

    name: str
    reason: str


def resolve_compute_dtype(name: str, device: Any = None) -> ComputeDtype:
    """The dtype of a tower's matrix products on a device.

    ``"auto"`` is bfloat16 if the device multiplies it faster than float32: on x86 processors with
    AVX-512 BF16 or AMX (as reported by Linux), NVIDIA GPUs of compute capability 8.0 or more, and
    TPUs. Otherwise, and if the device's capabilities are unknown, it is float32.

    Args:
      name: ``"float32"``, ``"bfloat16"`` or ``"auto"``.
      device: JAX device; None for the first device of the default backend.
    """
    if name != "auto":
        return ComputeDtype(name, "it is set")
    device = jax.devices()[0] if device is None else device
    if device.platform == "cpu":
        extension = _bfloat16_extension()
        if extension is not None:
            return ComputeDtype("bfloat16", f"the processor has {extension}")
        return ComputeDtype("float32", "the processor shows no fast products in bfloat16")
    if device.platform == "tpu":
        return ComputeDtype("bfloat16", "the device is a TPU")
    capability = str(getattr(device, "compute_capability", ""))
    parts = capability.split(".")
    if all(part.isdigit() for part in parts) and tuple(map(int, parts)) >= _AMPERE:
        return ComputeDtype("bfloat16", f"the GPU has compute capability {capability}")
    return ComputeDtype("float32", f"{device.device_kind} is not known to multiply bfloat16 faster")


@functools.cache
def _bfloat16_extension() -> str | None:
    """Name of the processor's extension that multiplies bfloat16; None if it has none."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return None
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return next((name for flag, name in _FLAGS.items() if flag in flags), None)
