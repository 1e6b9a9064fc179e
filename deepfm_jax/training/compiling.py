"""XLA compiler options for the programs of a model, and a warning about slow versions of XLA."""

import functools
import platform as host
import warnings

import jax
from jaxlib.version import __version_info__ as jaxlib_version

from deepfm_jax.layers import resolve_compute_dtype
from deepfm_jax.models import Model

# jaxlib versions from the first (inclusive) to the second (exclusive) are affected by
# https://github.com/jax-ml/jax/issues/38806.
_SLOW_SCATTERS = ((0, 10, 2), (0, 11, 1))

# Reductions keep the library that XLA chooses for them; matrix products use its other library.
_PLAIN_PRODUCTS = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE"}


def compiler_options(model: Model, platform: str) -> dict[str, str]:
    """Options for ``jax.jit`` of a step of ``model``; empty except on x86 processors.

    On x86, XLA has two libraries for matrix products and uses YNNPACK where it can. The other,
    Eigen's contraction, multiplies float32 matrices of a tower's shapes faster on AMD's Zen 4, the
    only processor on which both were timed. It has no fast bfloat16 product, and is slower at the
    many small products of attention, one per example and attention head: models with such products
    (``Model.has_small_products``) are compiled with XLA's own choice.

    Args:
      model: Model of the step.
      platform: Platform of the devices that run it: ``"cpu"``, ``"gpu"`` or ``"tpu"``.
    """
    if platform != "cpu" or host.machine() not in ("x86_64", "AMD64"):
        return {}
    compute_dtype = getattr(model, "compute_dtype", "float32")
    in_bfloat16 = resolve_compute_dtype(compute_dtype).name == "bfloat16"
    if in_bfloat16 or model.has_small_products or not _is_known():
        return {}
    return dict(_PLAIN_PRODUCTS)


@functools.cache
def warn_of_slow_scatters(platform: str, version: tuple[int, ...] = jaxlib_version) -> None:
    """Warns once, before training on a GPU, if this XLA compiles scattered additions very slowly.

    The library itself scatters no additions to repeated indices on a GPU (``embedding.runs``);
    user code may.
    """
    if platform == "gpu" and _SLOW_SCATTERS[0] <= tuple(version[:3]) < _SLOW_SCATTERS[1]:
        first, fixed = (".".join(map(str, release)) for release in _SLOW_SCATTERS)
        warnings.warn(
            f"jaxlib {'.'.join(map(str, version[:3]))} compiles additions scattered to repeated "
            "indices, such as x.at[ids].add(y), to loops that can be hundreds of times slower on a "
            f"GPU (versions from {first} until {fixed}); upgrade jax to {fixed} or newer",
            stacklevel=3,
        )


@functools.cache
def _is_known() -> bool:
    """Whether this XLA knows the option; unknown options are an error."""
    try:
        jax.jit(lambda: 0, compiler_options=_PLAIN_PRODUCTS).lower().compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
