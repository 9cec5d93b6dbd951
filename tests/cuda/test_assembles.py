"""PTX of programs is accepted by the assembler, for every processor that it is made for."""

import shutil
import subprocess

import numpy as np
import pytest
from ml_dtypes import bfloat16
from programs import PROGRAMS

import dflow
from dflow.backends.cuda.launch.graph import SET_CONDITION
from dflow.backends.cuda.launch.occupancy import occupancy
from dflow.backends.cuda.ptx import LANGUAGE, TargetError, check_target, nearest

PTXAS = shutil.which("ptxas")
TARGETS = ["sm_80", "sm_90", "sm_100"]
SAMPLE = ["algorithms.fft", "finance.barrier_option", "physics.double_pendulum", "statistics.gaussian_process"]


def assemble(ptx, target, tmp_path):
    if PTXAS is None:
        pytest.skip("ptxas is not installed")
    source = tmp_path / "program.ptx"
    source.write_text(ptx)
    command = [PTXAS, f"-arch={target}", "-O0", "-o", str(tmp_path / "program.cubin"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def assert_complete(plan):
    """Every kernel that is launched is there, and with as many parameters as it is passed."""
    for launch in plan.launches:
        entry = plan.ptx.split(f".entry {launch.kernel}(")[1].split("{")[0]
        assert entry.count(".param") == len(launch.args)


def test_the_kernel_that_sets_conditions(tmp_path):
    for target in TARGETS:
        assemble(SET_CONDITION, target, tmp_path)


@pytest.mark.parametrize("name", SAMPLE)
def test_programs(name, tmp_path):
    (p,) = (p for p in PROGRAMS if p.name == name)
    lowered = dflow.jit(p.function, device="cuda", static_argnames=p.static).lower(*p.fresh())
    for target in TARGETS:
        plan = lowered.launches(target)
        assert plan.target == target and f".target {target}" in plan.ptx
        assert_complete(plan)
        assemble(plan.ptx, target, tmp_path)


def every_dtype(x):
    """Sums, sorts and scatters of one dtype."""
    y = x.copy()
    y[np.argsort(x)] += x
    return np.sum(y), y, np.max(x)


@pytest.mark.parametrize("dtype", ["f2", bfloat16, "f4", "f8", "i4", "u8"])
def test_dtypes(dtype, tmp_path):
    lowered = dflow.jit(every_dtype, device="cuda").lower(np.ones(3000, dtype))
    assert_complete(lowered.launches())
    assemble(lowered.ptx(), "sm_80", tmp_path)


def every_kernel(x, y, i):
    """Transposes, products, vectors, scatters, positions of extremes, loops over arrays."""
    z = np.zeros(x.shape, x.dtype)
    z[i] = x
    return x.T + y, x @ y, y.T @ x.T, x * x, z, np.argmax(x), np.cumsum(x, 0), np.sum(x, 0)


@pytest.mark.parametrize(("dtype", "target"), [("f2", "sm_80"), ("f4", "sm_90"), ("f8", "sm_100")])
def test_kernels(dtype, target, tmp_path):
    x, i = np.ones((520, 516), dtype), np.arange(520)
    lowered = dflow.jit(every_kernel, device="cuda", deterministic=True).lower(x, x.T.copy(), i)
    plan = lowered.launches(target)
    assert_complete(plan)
    assemble(plan.ptx, target, tmp_path)
    assert {"tiles", "matmul", "kernel", "scatter", "fold", "rowscan"} <= {k.what for k in plan.kernels}


def test_ptx_needs_no_driver():
    ptx = dflow.jit(lambda x: np.sin(x) * 2, device="cuda").lower(np.ones(1000)).ptx("sm_90")
    assert ".target sm_90" in ptx and ".entry" in ptx and "fma.rn.f64" in ptx


def test_targets():
    assert [check_target(f"sm_{n}") for n in LANGUAGE] == [f"sm_{n}" for n in LANGUAGE]
    assert nearest((9, 0)) == "sm_90" and nearest((8, 7)) == "sm_86" and nearest((12, 1)) == "sm_120"
    with pytest.raises(TargetError, match="known are sm_80"):
        dflow.jit(lambda x: x + 1, device="cuda").lower(np.ones(3)).ptx("sm_20")
    with pytest.raises(TargetError, match=r"7\.5; 8\.0 is needed"):
        nearest((7, 5))


def test_plans_are_readable(tmp_path):
    def f(x, n):
        for k in range(n):
            x = np.cos(x[::-1]) * k
        return np.linalg.eigvalsh(np.outer(x[:9], x[:9]))

    lowered = dflow.jit(f, device="cuda").lower(np.ones(50000), 3)
    text = str(lowered.launches())
    for part in ("f for sm_80", "b3: argument 0, 400000 bytes", "for c0 below", "<<<196, 256>>>(", "on the host: "):
        assert part in text
    assert "test_assembles.py:" in text


def test_resources():
    if PTXAS is None:
        pytest.skip("ptxas is not installed")
    lowered = dflow.jit(lambda x: np.sin(x), device="cuda").lower(np.ones(50000))
    (found,) = lowered.resources("sm_90").values()
    assert 10 < found.registers < 80 and found.spilled == 0 and 0.5 <= found.occupancy <= 1


def test_occupancy():
    """Of 65536 registers, of 64 or 48 warps, of the memory of blocks."""
    assert occupancy("sm_90", 256, 32, 0) == 1 and occupancy("sm_90", 256, 168, 0) == 8 / 64
    assert occupancy("sm_90", 128, 168, 0) == 12 / 64
    assert occupancy("sm_90", 32, 16, 0) == 32 / 64 and occupancy("sm_86", 32, 16, 0) == 16 / 48
    assert occupancy("sm_80", 256, 32, 40 << 10) == 4 * 8 / 64
