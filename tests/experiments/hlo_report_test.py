"""Collectives read from hand-written HLO; sizes are worked out in the comments."""

import pytest

from experiments.benchmarks.hlo_report import collectives, copies
from experiments.benchmarks.hlo_text import Shape, read

ADD = """
%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}
"""


def found(body, rest=ADD, header=""):
    text = f"HloModule m{header}\n{rest}\nENTRY %main (x: f32[4,8]) -> f32[4,8] {{\n{body}\n}}\n"
    return collectives(read(text))


def test_a_collective_is_read_whole():
    (one,) = found(
        "  %x = f32[4,8]{1,0:T(8,128)} parameter(0)\n"
        "  ROOT %y = f32[4,8]{1,0:T(8,128)S(1)} all-to-all(%x), channel_id=3, "
        'replica_groups={{0,1,2,3}}, dimensions={0}, metadata={op_name="jit(f)/all_to_all"}, '
        'backend_config={"flag_configs":[]}'
    )
    assert one.kind == "all-to-all"
    assert one.operands == (Shape("f32", (4, 8), "1,0:T(8,128)"),)
    assert one.results == (Shape("f32", (4, 8), "1,0:T(8,128)S(1)"),)
    assert (one.channel, one.group, one.loops) == (3, 4, ())
    assert (one.computation, one.source) == ("main", "jit(f)/all_to_all")
    assert one.bytes == 4 * 8 * 4


def test_a_gather_counts_its_results_and_a_scatter_its_operands():
    gather, scatter = found(
        "  %x = f32[4,8] parameter(0)\n"
        "  %y = f32[64,8] all-gather(%x), replica_groups=[2,16]<=[32], dimensions={0}\n"
        "  ROOT %z = f32[4,8] reduce-scatter(%y), "
        "replica_groups=mesh['a'=2,'b'=16] {'b'}, dimensions={0}, to_apply=%add"
    )
    assert gather.bytes == scatter.bytes == 64 * 8 * 4
    assert gather.group == scatter.group == 16


def test_a_combined_all_reduce_counts_all_its_parts():
    (one,) = found(
        "  %x = f32[4,8] parameter(0)\n"
        '  %h = bf16[10]{0:T(256)(128)(2,1)} custom-call(), custom_call_target="a(b){c"\n'
        "  %n = f32[] constant(1)\n"
        "  ROOT %y = (f32[4,8]{1,0:T(8,128)}, bf16[10]{0:T(256)(128)(2,1)}, /*index=2*/f32[]) "
        "all-reduce(%x, %h, /*index=2*/%n), replica_groups={}, to_apply=%add"
    )
    assert [str(shape) for shape in one.results] == ["f32[4,8]", "bf16[10]", "f32[]"]
    assert one.bytes == 128 + 20 + 4
    assert one.group is None


@pytest.mark.parametrize(
    ("kind", "started"),
    [
        ("all-gather", "(f32[4,8], f32[64,8])"),
        # The general form: operands, results, and the transfer's internal state.
        ("all-gather", "((f32[4,8]), f32[64,8], u32[], u32[])"),
    ],
)
def test_of_an_asynchronous_pair_the_transfer_is_counted_once(kind, started):
    (one,) = found(
        "  %x = f32[4,8] parameter(0)\n"
        f"  %s = {started} {kind}-start(%x), channel_id=1, replica_groups={{{{0,1}}}}\n"
        f"  ROOT %d = f32[64,8] {kind}-done(%s)"
    )
    assert (one.kind, one.bytes) == (kind, 64 * 8 * 4)
    assert [str(shape) for shape in one.operands] == ["f32[4,8]"]


def test_the_wrapped_form_of_an_asynchronous_collective_is_counted_once():
    (one,) = found(
        "  %x = f32[4,8] parameter(0)\n"
        "  %s = ((f32[4,8]), f32[4,8], u32[]) async-start(%x), calls=%wrapped\n"
        "  %u = ((f32[4,8]), f32[4,8], u32[]) async-update(%s)\n"
        "  ROOT %d = f32[4,8] async-done(%u)",
        rest="\n%wrapped (p: f32[4,8]) -> f32[4,8] {\n  %p = f32[4,8] parameter(0)\n"
        "  ROOT %t = f32[4,8] all-to-all(%p), replica_groups={{0,1}}, dimensions={0}\n}\n",
    )
    assert (one.kind, one.computation, one.bytes) == ("all-to-all", "wrapped", 128)


def test_a_start_without_its_done_is_an_error():
    with pytest.raises(ValueError, match="all-reduce-start %s has no all-reduce-done"):
        found("  %x = f32[4,8] parameter(0)\n  ROOT %s = f32[4,8] all-reduce-start(%x)")


LOOP = """
%body (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %v = f32[4,8] get-tuple-element(%p), index=1
  %w = f32[4,8] fusion(%v), kind=kCustom, calls=%fused
  ROOT %q = (s32[], f32[4,8]) tuple(%i, %w)
}

%fused (v: f32[4,8]) -> f32[4,8] {
  %v = f32[4,8] parameter(0)
  ROOT %t = f32[4,8] all-to-all(%v), replica_groups={{0,1}}, dimensions={0}
}

%cond (p: (s32[], f32[4,8])) -> pred[] {
  %p = (s32[], f32[4,8]) parameter(0)
  ROOT %go = pred[] constant(true)
}

%unreached (v: f32[4,8]) -> f32[4,8] {
  %v = f32[4,8] parameter(0)
  ROOT %t = f32[4,8] all-to-all(%v), replica_groups={{0,1}}, dimensions={0}
}
"""


def test_a_collective_in_a_loop_is_counted_once_and_says_so():
    (one,) = found(
        "  %x = f32[4,8] parameter(0)\n"
        "  %zero = s32[] constant(0)\n"
        "  %start = (s32[], f32[4,8]) tuple(%zero, %x)\n"
        "  %end = (s32[], f32[4,8]) while(%start), condition=%cond, body=%body, "
        'metadata={op_name="jit(f)/while" stack_frame_id=2}\n'
        "  ROOT %y = f32[4,8] get-tuple-element(%end), index=1",
        rest=LOOP,
    )
    assert (one.loops, one.computation, one.bytes) == (("jit(f)/while",), "fused", 128)


def test_a_computation_called_twice_is_counted_twice():
    both = found(
        "  %x = f32[4,8] parameter(0)\n"
        "  %i = s32[] constant(0)\n"
        "  ROOT %y = f32[4,8] conditional(%i, %x, %x), branch_computations={%fused, %fused}",
        rest=LOOP,
    )
    assert [one.bytes for one in both] == [128, 128]


@pytest.mark.parametrize(
    ("shape", "plain", "padded"),
    [
        (Shape("f32", (256, 208, 16), "1,2,0:T(8,128)"), 256 * 208 * 64, 256 * 256 * 64),
        (Shape("s32", (1024, 39), "0,1:T(8,128)S(1)"), 1024 * 39 * 4, 1024 * 40 * 4),
        (Shape("f32", (16, 1, 2696), "2,1,0:T(1,128)S(1)"), 16 * 2696 * 4, 16 * 2816 * 4),
        (Shape("bf16", (3, 100), "1,0:T(8,128)(2,1)"), 3 * 100 * 2, 8 * 128 * 2),
        (Shape("f32", (400,), "0:T(512)"), 400 * 4, 512 * 4),
        (Shape("f32", (), ":T(128)"), 4, 128 * 4),
        (Shape("pred", (5,)), 5, 5),
        (Shape("s4", (5,)), 3, 3),
    ],
    ids=str,
)
def test_bytes_of_an_array_plain_and_in_whole_tiles(shape, plain, padded):
    assert (shape.bytes, shape.padded_bytes) == (plain, padded)


def test_copies_are_of_arrays_with_the_rows_asked_for_and_pairs_count_once():
    text = (
        "HloModule m\nENTRY %main (x: f32[40,8]) -> f32[40,8] {\n"
        "  %x = f32[40,8] parameter(0)\n"
        "  %s = ((f32[40,8]), f32[10,8]{1,0:S(1)}, s32[]) slice-start(%x), slice={[0:10], [0:8]}\n"
        "  %d = f32[10,8]{1,0:S(1)} slice-done(%s)\n"
        "  %c = (f32[40,8]{1,0:S(1)}, f32[40,8], u32[]) copy-start(%x)\n"
        "  %e = f32[40,8]{1,0:S(1)} copy-done(%c)\n"
        "  %small = f32[10,8] copy(%d)\n"
        "  ROOT %y = f32[40,8] copy(%e)\n}\n"
    )
    assert copies(read(text), 40) == {"f32[40,8]": (10 + 40 + 40) * 8 * 4}
    assert copies(read(text), 41) == {}


def test_aliased_arguments_are_counted_from_the_header():
    text = (
        "HloModule m, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias), "
        "{1}: (2, {1}, must-alias) }, entry_computation_layout={(f32[]{:T(128)})->f32[]{:T(128)}}\n"
        "ENTRY %main (x: f32[]) -> f32[] {\n  ROOT %x = f32[] parameter(0)\n}\n"
    )
    assert read(text).aliased == 2
    assert read(text.replace("input_output_alias", "other")).aliased == 0


def test_text_that_is_not_known_is_an_error():
    with pytest.raises(ValueError, match="without an entry"):
        read("HloModule m\n")
    with pytest.raises(ValueError, match="cannot read %y"):
        found("  %y = f32[4] <nothing>")
    with pytest.raises(ValueError, match="dtype 'wide'"):
        assert Shape("wide", (2,)).bytes
