import types

import chex
import jax
import numpy as np
import pytest

from deepfm_jax import UserError, build_model
from deepfm_jax.layers import MLP, compute_dtype, resolve_compute_dtype

INPUTS = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)


def device(platform, **attributes):
    return types.SimpleNamespace(platform=platform, device_kind="a device", **attributes)


@pytest.fixture
def processor(tmp_path, monkeypatch):
    """Makes Linux report a processor with some flags."""

    def report(flags):
        (tmp_path / "cpuinfo").write_text(f"model name\t: a processor\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr(compute_dtype, "_CPUINFO", tmp_path / "cpuinfo")
        compute_dtype._bfloat16_extension.cache_clear()

    yield report
    compute_dtype._bfloat16_extension.cache_clear()


@pytest.mark.parametrize(
    ("flags", "expected", "reason"),
    [
        ("avx512f avx512_bf16", "bfloat16", "the processor has AVX-512 BF16"),
        ("avx512_bf16 amx_bf16", "bfloat16", "the processor has AMX"),
        ("avx512f avx2 amx_int8", "float32", "the processor shows no fast products in bfloat16"),
    ],
)
def test_a_processor_takes_bfloat16_where_it_has_instructions_for_it(
    processor, flags, expected, reason
):
    processor(flags)
    assert resolve_compute_dtype("auto", device("cpu")) == (expected, reason)


def test_a_system_that_does_not_list_its_processor_takes_float32(tmp_path, monkeypatch, processor):
    processor("")
    monkeypatch.setattr(compute_dtype, "_CPUINFO", tmp_path / "absent")
    assert resolve_compute_dtype("auto", device("cpu")).name == "float32"


@pytest.mark.parametrize(
    ("accelerator", "expected"),
    [
        (device("tpu"), "bfloat16"),
        (device("gpu", compute_capability="9.0"), "bfloat16"),
        (device("gpu", compute_capability="12.0"), "bfloat16"),
        (device("gpu", compute_capability="7.5"), "float32"),
        (device("gpu", compute_capability="gfx942"), "float32"),
        (device("gpu"), "float32"),
    ],
)
def test_an_accelerator_takes_bfloat16_where_it_is_known_to_be_faster(accelerator, expected):
    assert resolve_compute_dtype("auto", accelerator).name == expected


@pytest.mark.parametrize("name", ["float32", "bfloat16"])
def test_what_is_set_stands_on_every_device(name):
    assert resolve_compute_dtype(name, device("tpu")).name == name


@pytest.mark.parametrize(("flags", "same"), [("avx512_bf16", "bfloat16"), ("sse2", "float32")])
def test_an_auto_tower_equals_the_one_with_that_dtype_set(processor, flags, same):
    processor(flags)
    chosen, explicit = MLP((16, 8), compute_dtype="auto"), MLP((16, 8), compute_dtype=same)
    variables = explicit.init(jax.random.key(0), INPUTS)
    chex.assert_trees_all_equal(chosen.apply(variables, INPUTS), explicit.apply(variables, INPUTS))


def test_a_table_cannot_be_left_to_choose():
    with pytest.raises(UserError, match="table_dtype='auto' must be one of 'float32', 'bfloat16'"):
        build_model("deepfm", (4, 3), {"table_dtype": "auto"})
    assert build_model("deepfm", (4, 3), {"compute_dtype": "auto"})
