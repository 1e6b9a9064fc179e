"""What ``compute_dtype="auto"`` stands for on a device."""

import functools
import pathlib
from typing import Any, NamedTuple

import jax

COMPUTE_DTYPES = ("float32", "bfloat16", "auto")
# Flags of Linux for x86 processors that multiply bfloat16, with their names.
_FLAGS = {"amx_bf16": "AMX", "avx512_bf16": "AVX-512 BF16"}
_CPUINFO = pathlib.Path("/proc/cpuinfo")
# The first NVIDIA generation whose tensor cores multiply bfloat16 (Ampere).
_AMPERE = (8, 0)


class ComputeDtype(NamedTuple):
    """A dtype of products, ``"float32"`` or ``"bfloat16"``, and why it is that one."""

    name: str
    reason: str


def resolve_compute_dtype(name: str, device: Any = None) -> ComputeDtype:
    """The dtype that a tower multiplies in on a device.

    ``"auto"`` is bfloat16 where the device multiplies it faster than float32: on x86 processors
    with AVX-512 BF16 or AMX (as Linux reports them), on NVIDIA GPUs of compute capability 8.0 or
    more, and on TPUs. Elsewhere, and where it cannot be told, it is float32.

    Args:
      name: ``"float32"``, ``"bfloat16"`` or ``"auto"``.
      device: Of JAX; None for the first of the default backend.
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
    """The instructions by which this processor multiplies bfloat16; None for none."""
    try:
        lines = _CPUINFO.read_text().splitlines()
    except OSError:
        return None
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    return next((name for flag, name in _FLAGS.items() if flag in flags), None)
