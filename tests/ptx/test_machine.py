"""Threads that part and meet, wait for each other, call, and share memory; and what is reported when they go wrong."""

import numpy as np
import pytest

from ptx import Deadlock, IllegalInstruction, Machine, Misaligned, OutOfBounds, Race, Trap, Uninitialised
from ptx.snippets import kernel, run

STORE = "add.s64 %rd8, %rd0, %rd9; st.global.b64 [%rd8], %rd5;"
N = np.arange(64, dtype=np.int64)


def one(body, block=64, **options):
    return run(kernel(body + STORE, **options), N, block=block)[0]


def test_threads_that_part_meet_again():
    body = """
    cvt.u64.u32 %rd5, %r0;
    mov.b64 %rd6, 0;
$loop:
    add.s64 %rd6, %rd6, 2;
    sub.s64 %rd5, %rd5, 1;
    setp.gt.s64 %p0, %rd5, 0;
    @%p0 bra $loop;
    activemask.b32 %r1;
    cvt.u64.u32 %rd7, %r1;
    mad.lo.s64 %rd5, %rd7, 1000, %rd6;
    """
    np.testing.assert_array_equal(one(body), 1000 * (2**32 - 1) + 2 * np.maximum(N, 1))


def test_guards_and_tables_of_branches():
    body = """
    and.b32 %r1, %r0, 3;
    mov.b64 %rd5, 9;
    setp.eq.s32 %p0, %r1, 3;
    @%p0 bra $end;
$table: .branchtargets $a, $b, $a;
    brx.idx %r1, $table;
$b: mov.b64 %rd5, 5;
    bra.uni $end;
$a: mov.b64 %rd5, 4;
$end:
    setp.gt.u32 %p1, %r0, 31;
    @!%p1 add.s64 %rd5, %rd5, 100;
    """
    np.testing.assert_array_equal(one(body), np.array([4, 5, 4, 9])[N % 4] + 100 * (N < 32))


def test_shared_memory_and_barriers():
    body = """
    mov.b64 %rd1, tile;
    add.s64 %rd2, %rd1, %rd9;
    add.s64 %rd3, %rd0, %rd9;
    ld.global.b64 %rd4, [%rd3];
    st.shared.b64 [%rd2], %rd4;
    bar.sync 0;
    sub.s64 %rd2, %rd1, %rd9;
    ld.shared.b64 %rd5, [%rd2+504];
    """
    declare = ".shared .align 8 .b8 tile[512];"
    np.testing.assert_array_equal(one(body, declarations=declare), N[::-1])
    with pytest.raises(
        Race, match=r"ld\.shared\.b64.*thread 0 of block 0: reads shared memory that thread 63 .* wrote"
    ):
        one(body.replace("bar.sync 0;", ""), declarations=declare)
    with pytest.raises(Deadlock, match=r"bar\.sync 0.*thread 33 of block 0 and 30 others"):
        one(body.replace("bar.sync", "setp.lt.u32 %p0, %r0, 33; @%p0 bra $e; bar.sync") + "$e:", declarations=declare)


def test_dynamic_shared_memory_and_generic_addresses():
    body = """
    mov.b64 %rd1, tile;
    cvta.shared.u64 %rd1, %rd1;
    add.s64 %rd2, %rd1, %rd9;
    setp.lt.u32 %p0, %r0, 5;
    add.s64 %rd3, %rd0, %rd9;
    selp.b64 %rd4, %rd3, %rd2, %p0;
    st.b64 [%rd2], %rd9;
    ld.b64 %rd5, [%rd4];
    cvta.to.shared.u64 %rd6, %rd2;
    ld.shared.b64 %rd7, [%rd6];
    add.s64 %rd5, %rd5, %rd7;
    """
    text = kernel(body + STORE, outside=".extern .shared .align 8 .b8 tile[];")
    np.testing.assert_array_equal(run(text, N, block=64, shared=512)[0], np.where(N < 5, N, 8 * N) + 8 * N)
    with pytest.raises(OutOfBounds):
        run(text, N, block=64, shared=504)


def test_shuffles_votes_and_warp_reductions():
    body = """
    shfl.sync.down.b32 %r1, %r0, 4, 31, -1;
    shfl.sync.bfly.b32 %r2, %r0, 1, 0x1C1F, -1;
    shfl.sync.up.b32 %r3|%p0, %r0, 3, 0, -1;
    setp.lt.u32 %p1, %r0, 3;
    vote.sync.ballot.b32 %r4, %p1, -1;
    redux.sync.add.u32 %r5, %r0, -1;
    selp.b32 %r6, 1, 0, %p0;
    mad.lo.s32 %r1, %r1, 100, %r2;
    mad.lo.s32 %r1, %r3, 10000, %r1;
    mad.lo.s32 %r1, %r6, 1000000, %r1;
    mad.lo.s32 %r1, %r4, 10000000, %r1;
    add.s32 %r1, %r1, %r5;
    cvt.u64.u32 %rd5, %r1;
    """
    lane, first = N % 32, N // 32 * 32
    down = np.where(lane + 4 < 32, N + 4, N)
    up = np.where(lane >= 3, N - 3, N)
    total = np.where(N < 32, 496, 496 + 1024)
    flags = (lane >= 3) * 1000000 + np.where(first == 0, 7, 0) * 10000000
    np.testing.assert_array_equal(one(body), down * 100 + (N ^ 1) + up * 10000 + flags + total)
    part = "setp.lt.u32 %p0, %r0, 3; @%p0 bra $over; shfl.sync.down.b32 %r1, %r0, 4, 31, -1;\n$over:"
    with pytest.raises(Deadlock, match=r"shfl\.sync\.down"):
        one(part)


def test_atomic_updates_come_one_after_the_other():
    body = """
    atom.global.add.u64 %rd5, [%rd1], 2;
    red.global.max.s64 [%rd1+8], %rd9;
    atom.global.cas.b64 %rd6, [%rd1+16], 0, 7;
    atom.global.add.f64 %rd7, [%rd1+24], 0d3FE0000000000000;
    """
    out, cells = run(kernel(body + STORE, 2), N, np.zeros(4, np.int64), block=64)
    np.testing.assert_array_equal(np.sort(out), 2 * N)
    np.testing.assert_array_equal(cells[:3], [128, 504, 7])
    assert cells[3:].view(float) == 32.0


def test_blocks_see_each_other_behind_a_fence():
    body = """
    mov.u32 %r1, %ctaid.x;
    mul.wide.u32 %rd2, %r1, 8;
    add.s64 %rd3, %rd0, %rd2;
    st.global.b64 [%rd3], 5;
    fence.acq_rel.gpu;
    atom.global.add.u32 %r2, [%rd1], 1;
    setp.ne.s32 %p0, %r2, 2;
    @%p0 bra $end;
    ld.global.b64 %rd3, [%rd0];
    ld.global.b64 %rd4, [%rd0+8];
    ld.global.b64 %rd5, [%rd0+16];
    add.s64 %rd3, %rd3, %rd4;
    add.s64 %rd3, %rd3, %rd5;
    st.global.b64 [%rd1+8], %rd3;
$end:
    """
    assert run(kernel(body, 2), 24, np.zeros(2, np.int64), grid=3)[1][1] == 15
    with pytest.raises(Race, match="of block"):
        run(kernel(body.replace("fence.acq_rel.gpu;", ""), 2), 24, np.zeros(2, np.int64), grid=3)


def test_functions_and_local_memory():
    function = """
.func (.param .b64 func_retval0) twice(.param .b64 twice_param_0, .param .b64 twice_param_1) {
.local .align 8 .b8 depot[16];
.reg .b64 %rd<9>;
.reg .pred %p<2>;
ld.param.b64 %rd1, [twice_param_0];
mov.b64 %rd2, depot;
cvta.local.u64 %rd3, %rd2;
st.b64 [%rd3+8], %rd1;
ld.local.b64 %rd4, [%rd2+8];
ld.param.b64 %rd6, [twice_param_1];
setp.gt.s64 %p1, %rd4, 250;
@%p1 bra $big;
add.s64 %rd4, %rd4, %rd4;
$big: add.s64 %rd4, %rd4, %rd6;
st.param.b64 [func_retval0], %rd4;
ret;
}
"""
    body = """
{ .param .b64 param0; .param .b64 param1; .param .b64 retval0;
st.param.b64 [param0], %rd9; st.param.b64 [param1], 3;
call.uni (retval0), twice, (param0, param1);
ld.param.b64 %rd5, [retval0]; }
"""
    np.testing.assert_array_equal(one(body, outside=function), np.where(8 * N > 250, 8 * N, 16 * N) + 3)


def test_constants_and_vectors():
    outside = ".const .align 8 .u64 table[4] = {1, 2, 3, 0xFF};\n.global .align 4 .b8 bytes[8] = {1, 2, 3, 4};"
    body = """
    mov.b64 %rd1, table;
    and.b64 %rd2, %rd9, 24;
    add.s64 %rd1, %rd1, %rd2;
    ld.const.b64 %rd3, [%rd1];
    ld.global.b32 %r1, [bytes];
    ld.global.v2.b8 {%rs1, %rs2}, [bytes+2];
    cvt.u64.u16 %rd4, %rs2;
    mov.b64 {%r2, _}, %rd3;
    mov.b64 %rd5, {%r2, %r1};
    add.s64 %rd5, %rd5, %rd4;
    """
    np.testing.assert_array_equal(one(body, outside=outside), np.array([1, 2, 3, 255])[N % 4] + 4 + (0x04030201 << 32))
    with pytest.raises(OutOfBounds, match="constant memory"):
        one("mov.b64 %rd1, table; st.global.b64 [%rd1], 0;", outside=outside)


def test_accesses_out_of_bounds():
    with pytest.raises(
        OutOfBounds, match=r"k, line \d+: `st.global.b64.*thread 64 of block 0: .*past the 512 of buffer 0"
    ):
        one("", block=65)
    with pytest.raises(OutOfBounds, match="in no buffer"):
        one("ld.global.b64 %rd5, [%rd0+-8];")
    with pytest.raises(Misaligned, match="8 bytes at byte 4 of the 512"):
        one("ld.global.b64 %rd5, [%rd0+4];")
    with pytest.raises(Misaligned, match="16 bytes"):
        one("ld.global.v2.b64 {%rd5, %rd6}, [%rd0+8];")


def test_reads_of_what_was_never_written():
    body = "st.global.b64 [%rd0], 0; st.global.b32 [%rd0+8], 0; st.global.b32 [%rd0+12], 0;"
    with pytest.raises(Uninitialised, match="byte 16 of the 24 of buffer 0"):
        run(kernel(body + "ld.global.b64 %rd5, [%rd0+8]; ld.global.b64 %rd5, [%rd0+16];"), 24)
    with pytest.raises(Uninitialised, match=r"thread 0 of block 0.*shared address 0"):
        one("ld.shared.b64 %rd5, [tile];", declarations=".shared .align 8 .b8 tile[512];")


def test_threads_that_write_one_place():
    with pytest.raises(Race, match="writes global memory that thread 63 of block 0 writes"):
        run(kernel("st.global.b64 [%rd0], %rd9;"), N, block=64)
    with pytest.raises(Race, match=r"thread 0 of block 1\b.*thread 0 of block 0 wrote|thread 0 of block 0\b"):
        run(kernel("add.s64 %rd8, %rd0, %rd9; st.global.b64 [%rd8], 1;"), N, grid=2, block=3)


def test_memory_that_is_read_as_constant_and_written():
    body = "ld.global.nc.b64 %rd5, [%rd1]; add.s64 %rd8, %rd0, %rd9; st.global.b64 [%rd8], %rd5;"
    np.testing.assert_array_equal(run(kernel(body, 2), N, N + 7, block=64)[0], 7)
    with pytest.raises(Race, match="as constant that thread 0 of block 0 wrote in the same launch"):
        run(
            kernel("setp.ne.u32 %p0, %r0, 0; @!%p0 st.global.b64 [%rd0], 5; ld.global.nc.b64 %rd5, [%rd0];"), N, block=2
        )


def test_endless_loops_and_traps():
    with pytest.raises(Deadlock, match="does not end"):
        one("$l: bra.uni $l;")
    with pytest.raises(Trap, match="thread 7 of block 0: trap"):
        one("setp.eq.u32 %p0, %r0, 7; @%p0 trap;")


def test_wrong_launches():
    machine = Machine(kernel("").replace(")\n{", ")\n.maxntid 32, 1, 1\n{", 1))
    with pytest.raises(IllegalInstruction, match="at most 32 threads"):
        machine.launch("k", 1, 64, [bytes(8)])
    with pytest.raises(IllegalInstruction, match="1 parameters, got 2"):
        machine.launch("k", 1, 32, [bytes(8), bytes(8)])
    with pytest.raises(IllegalInstruction, match="no code of missing"):
        machine.launch("missing", 1, 1, [])
