"""What XLA is asked for in every test, as far as the XLA at hand knows it."""

import os
import subprocess
import sys

# Tests compile far more than they compute, so code is not optimised. Eight devices of two busy
# cores may meet late; by default XLA ends the process after 40 seconds.
_WANTED = (
    "--xla_force_host_platform_device_count=8",
    "--xla_backend_optimization_level=0",
    "--xla_cpu_use_fusion_emitters=false",
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_collective_call_terminate_timeout_seconds=600",
)
_FOUND = "DEEPFM_TESTS_XLA_FLAGS"


def known_flags() -> str:
    """The flags that XLA starts with; one that it does not know aborts the process.

    The workers of pytest-xdist inherit what the first process found out.
    """
    if _FOUND not in os.environ:
        known = _WANTED if _are_known(*_WANTED) else tuple(filter(_are_known, _WANTED))
        os.environ[_FOUND] = " ".join(known)
    return os.environ[_FOUND]


def _are_known(*flags: str) -> bool:
    return not subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env={**os.environ, "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        check=False,
    ).returncode
