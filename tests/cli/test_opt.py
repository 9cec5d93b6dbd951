"""``dflow opt`` and ``dflow run``: programs as text."""

from __future__ import annotations

import re

import numpy as np
import pytest
from programs_cli import CALLS, NORM


def test_opt(dflow_says):
    assert dflow_says("opt", "norm.ir") == NORM
    cleaned = dflow_says("opt", "norm.ir", "--passes", "cse,dce", "--verify")
    assert cleaned == NORM.replace("  %b = mul %x, %x : f64[3]\n", "").replace("%a, %b", "%a, %a")
    heads = {
        "jvp": "func @jvp_norm(%x: f64[3], %k: f64, %x_dot: f64[3], %k_dot: f64) -> (f64, f64) {",
        "vjp": "func @vjp_norm(%x: f64[3], %k: f64, %r_bar: f64) -> (f64, f64[3], f64) {",
        "value_and_grad": "func @grad_norm(%x: f64[3], %k: f64) -> (f64, f64[3], f64) {",
        "fuse,bufferize": "func @norm(%x: f64[3], %k: f64) -> (f64) {",
    }
    for passes, head in heads.items():
        assert dflow_says("opt", "norm.ir", "-p", passes, "--verify").splitlines()[0] == head
    both = dflow_says("opt", "norm.ir", "-p", "linearize,optimize", "--verify")
    assert both.count("func @") == 2 and "%x_dot: lin f64[3]" in both


def test_opt_on_modules(dflow_says):
    assert dflow_says("opt", "calls.ir", "-p", "cse", "--verify") == CALLS
    inlined = "func @f(%x: f64) -> (f64) {\n  %y = sin %x : f64\n  return %y\n}\n"
    assert dflow_says("opt", "calls.ir", "-p", "inline") == inlined
    assert dflow_says("opt", "calls.ir", "-p", "vjp").startswith("func @vjp_f(%x: f64, %y_bar: f64) -> (f64, f64) {")


def test_transpose(dflow_says, refused, folder):
    (folder / "linear.ir").write_text(
        "func @f(%c: f64, %x: lin f64) -> (f64) {\n  %y = mul %c, %x : f64\n  return %y\n}\n"
    )
    said = dflow_says("opt", "linear.ir", "-p", "transpose", "--verify")
    assert said.startswith("func @f_transpose(%c: f64, %y_bar: lin f64) -> (f64) {")
    assert refused("opt", "norm.ir", "-p", "transpose").startswith("mul")


def test_opt_errors(refused, monkeypatch, folder):
    assert refused("opt", "norm.ir", "-p", "cse,nope").startswith("there is no pass nope; there are accumulate, buff")
    assert refused("opt", "missing.ir") == "missing.ir: No such file or directory"
    (folder / "bad.ir").write_text("func @f(%x: f64) -> (f64) {\n  return %y\n}\n")
    assert refused("opt", "bad.ir") == "bad.ir, line 2, column 10: %y is not defined here\n    return %y\n           ^"
    (folder / "wrong.ir").write_text("func @f(%x: i64) -> (i64) {\n  %y = sin %x : i64\n  return %y\n}\n")
    assert refused("opt", "wrong.ir", "--verify").startswith("@f does not verify, line 2:\n")
    (folder / "binary.ir").write_bytes(b"\xff\xfe\x00")
    assert refused("opt", "binary.ir") == "binary.ir: not a text file"


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_run(dflow_says, folder, backend):
    np.save("x.npy", np.array([1.0, 2.0, 3.0]))
    for x in ("[1, 2.0, 3]", "x.npy"):
        assert dflow_says("run", "norm.ir", "--args", x, "-2", "--backend", backend) == "f64: -56.0\n"
    assert dflow_says("run", "calls.ir", "--args", "nan", "--backend", backend) == "f64: nan\n"
    assert dflow_says("run", "norm.ir", "--args", "[0, 0, -inf]", "1", "--backend", backend) == "f64: inf\n"
    (folder / "types.ir").write_text(
        "func @f(%p: bool, %i: u8[2, 1], %h: f32) -> (bool, u8[2, 1], f32, f64[0]) {\n"
        "  %e = constant {value = []} : f64[0]\n  return %p, %i, %h, %e\n}\n"
    )
    said = dflow_says("run", "types.ir", "--args", "True", "[[1], [255]]", "0.1", "--backend", backend)
    assert said == "bool: True\nu8[2, 1]: [[1], [255]]\nf32: 0.1\nf64[0]: []\n"


def test_run_errors(refused, folder):
    wanted = "expected %k: f64 as a number, a nested list of numbers or a .npy file"
    assert refused("run", "norm.ir", "--args", "[1, 2, 3]") == "@norm takes %x: f64[3], %k: f64; got 1 values"
    assert refused("run", "norm.ir", "--args", "[1, 2, 3]", "two") == f"two: {wanted}"
    assert refused("run", "norm.ir", "--args", "[1, 2, 3]", "__import__('os')") == f"__import__('os'): {wanted}"
    assert refused("run", "norm.ir", "--args", "[1, 2]", "1") == "[1, 2]: expected %x: f64[3], got i64[2]"
    assert refused("run", "norm.ir", "--args", "x.npy", "1") == "x.npy: No such file or directory"
    (folder / "x.npy").write_text("no array")
    assert refused("run", "norm.ir", "--args", "x.npy", "1").startswith("x.npy: not an array in NumPy's format (")
    (folder / "small.ir").write_text("func @f(%i: i8) -> (i8) {\n  return %i\n}\n")
    assert refused("run", "small.ir", "--args", "300") == "300: does not fit %i: i8"
    assert refused("run", "small.ir", "--args", "1.5") == "1.5: expected %i: i8, got f64"


def test_checks_that_fail(refused, folder):
    (folder / "check.ir").write_text(
        "func @f(%p: bool, %n: i64) -> () {\n"
        '  check %p, %n {error = "ValueError", message = "bad n: {0}"} @ "user.py":7\n  return\n}\n'
    )
    for backend in ("reference", "cpu"):
        said = refused("run", "check.ir", "--args", "False", "5", "--backend", backend)
        assert said == "ValueError: bad n: 5\nat user.py:7"


def test_linearize_then_transpose(dflow_says, folder):
    text = dflow_says("opt", "norm.ir", "--passes", "linearize,transpose,optimize", "--verify")
    nonlinear, linear = text.split("\n\n")
    assert nonlinear.startswith("func @norm_primal(")
    assert re.match(r"func @.*norm_linear.*_bar: lin f64\) -> \(f64\[3\], f64\)", linear)


def test_text_is_no_argument(refused):
    assert refused("run", "norm.ir", "--args", "[1, 2, 'a']", "1").endswith(
        "expected %x: f64[3] as a number, a nested list of numbers or a .npy file"
    )
