"""The text format: what is printed parses back to the same, and errors point at the place."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from programs_ir import Program, random_functions

from dflow.ir.builder import Builder
from dflow.ir.core import Block, Function, Location, Module, Op, Value, walk
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import ParseError, parse_function, parse_module
from dflow.ir.printer import print_function, print_module
from dflow.ir.types import BF16, BOOL, C64, DTYPES, F16, F32, F64, GROWS, I64, U64, Size, TensorType, scalar
from dflow.ir.verifier import verify

LOOP = """\
func @f(%x: lin f64[3], %n: i64) -> (f64) {
  %0 = constant {value = 2.0} : f64
  %y = sin %x : f64[3]
  %s, %t = for %n, %0, %y { (%k: i64, %a: f64, %b: f64[3])
    %c = if %p {
      %1 = neg %a : f64
      yield %1
    } else {
      yield %a
    } : f64
    yield %c, %b
  } : f64, f64[3]
  check %p, %n {error = "ValueError", message = "a \\"quoted\\" {0}\\n"}
  return %s
}""".replace("%p", "%p_1").replace("%n: i64", "%n: i64, %p_1: bool")

SIZES = """\
func @sizes(%x: f64[%n<=21, 2], %n: i64) -> (f64[%n<=21, 2], i64[%m<=3], f64[*, 2]) {
  %m = constant {value = 3} : i64
  %i = iota {size = %m<=3} : i64[%m<=3]
  %s = sequence : f64[*, 2]
  %e = empty : f32[0, 3]
  %r = broadcast %e {shape = (4, 0, 3), dims = (1, 2)} : f32[4, 0, 3]
  %p = extract %x, %m {index = (("slice", 1, -2), "all")} : f64[1, 2]
  return %x, %i, %s
}"""

WHILE = """\
func @"<lambda>"(%x.1: f64) -> (f64) {
  %r = while %x.1 { (%a: f64)
    %small = lt %a, %x.1 : bool
    yield %small
  } do { (%a_1: f64)
    %b = call %a_1 {callee = "g"} : f64
    yield %b
  } : f64
  %k = kernel {domain = (2, 3), reduced = 1, combine = ("sum",)} { (%i: i64, %j: i64)
    yield %r
  } : f64[2]
  return %r
}"""


@pytest.mark.parametrize("text", [LOOP, SIZES, WHILE])
def test_parsed_text_prints_the_same(text: str) -> None:
    assert print_function(parse_function(text)) == text


def test_attributes_are_python_values() -> None:
    f = parse_function("""
    func @f() -> () {  # a comment
      op {a = -1, b = 1.5, c = "s", d = True, e = None, f = (1, (2,), ()), g = f32, h = f64[], i = i8[*, 2],}
      op {j = -inf, k = 1e3, l = complex(1.0, -0.0), m = array(f32[2, 0], []), n = array(u8[2], [1, 2]), o = nan}
      return
    }
    """)
    a, b = (op.attrs for op in f.body.ops)
    want = dict(a=-1, b=1.5, c="s", d=True, e=None, f=(1, (2,), ()), g=F32, h=scalar(F64), i=a["i"])
    assert a == want and str(a["i"]) == "i8[*, 2]" and a["i"].grows
    assert b["j"] == -np.inf and type(b["k"]) is float and b["l"] == 1 and np.signbit(b["l"].imag)
    assert b["m"].shape == (2, 0) and b["m"].dtype == np.float32 and b["n"].tolist() == [1, 2] and np.isnan(b["o"])
    assert print_function(parse_function(print_function(f))) == print_function(f)


ARRAYS = [
    np.array(2.0),
    np.array(-0.0),
    np.array(np.inf),
    np.array(True),
    np.array(2**64 - 1, np.uint64),
    np.array(-(2**63)),
    np.array(1 - 0j, np.complex64),
    np.array(0.1, np.float32),
    np.zeros((0, 3)),
    np.zeros((2, 0), np.float16),
    np.array([[1.0, np.nan], [-np.inf, -0.0]]),
    np.array([True, False]),
    np.array([[0.1, 1e-45]], np.float32),
    np.array([1e-8, 65504], np.float16),
    np.array([1e-40, 3.39e38, -np.inf], BF16.numpy),
    np.array([2**63], np.uint64),
    np.array([1 + 2j, complex(-0.0, np.inf)]),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda a: f"{a.dtype}{list(a.shape)}")
def test_constants_come_back_to_the_bit(array: np.ndarray) -> None:
    b = Builder()
    f = b.function("f", [b.constant(array)])
    again = parse_function(print_function(f))
    verify(again)
    assert again.result_types == f.result_types
    (x,), (y,) = evaluate(f, []), evaluate(again, [])
    assert x.dtype == y.dtype == array.dtype and x.tobytes() == y.tobytes() == array.tobytes()
    assert type(again.body.ops[0].attrs["value"]) is type(f.body.ops[0].attrs["value"])


@given(st.floats(width=64), st.sampled_from([F16, F32, F64]))
def test_any_float_comes_back(x: float, dtype) -> None:
    b = Builder()
    with np.errstate(all="ignore"):
        value = np.asarray(x).astype(dtype.numpy)
    f = b.function("f", [b.constant(value, dtype)])
    assert np.array_equal(evaluate(parse_function(str(f)), [])[0], value, equal_nan=True)


def test_a_written_constant_takes_the_type_of_its_annotation() -> None:
    f = parse_function("func @f() -> (f64, bool[2]) {\n %a = constant {value = 2} : f64\n"
                       " %b = constant {value = [1, 0]} : bool[2]\n return %a, %b\n}")  # fmt: skip
    a, b = (op.attrs["value"] for op in f.body.ops)
    assert type(a) is float and b.dtype == np.bool_


def test_names_are_hints_made_unique() -> None:
    b = Builder([scalar(F64)] * 4, ["x", "x", "x_1", "3 é!"])
    y = b.append("neg", [b.args[0]], hints=["x"])
    text = print_function(b.function("f", [*y, b.sin(y[0])]))
    assert text.splitlines()[0] == "func @f(%x: f64, %x_1: f64, %x_1_1: f64, %_3___: f64) -> (f64, f64) {"
    assert text.splitlines()[1:3] == ["  %x_2 = neg %x : f64", "  %0 = sin %x_2 : f64"]
    assert print_function(parse_function(text)) == text
    assert [a.hint for a in parse_function(text).args] == ["x", "x_1", "x_1_1", "_3___"]


def test_locations_are_optional_and_exact() -> None:
    outer = Location("main.py", 3)
    inner = Location('dir/"odd" name.py', 12, 4, 9, "model.<locals>.f", outer)
    b = Builder([scalar(F64)], ["x"], loc=inner)
    f = b.function("f", [b.sin(b.args[0])], loc=outer)
    assert "@ " not in print_function(f)
    text = print_function(f, locations=True)
    assert text == (
        'func @f(%x: f64) -> (f64)  @ "main.py":3 {\n'
        '  %0 = sin %x : f64  @ "dir/\\"odd\\" name.py":12:4:9 in "model.<locals>.f" from "main.py":3\n'
        "  return %0\n}"
    )
    again = parse_function(text)
    assert (again.loc, again.body.ops[0].loc) == (outer, inner)


def test_modules() -> None:
    m = parse_module(LOOP + "\n\n" + SIZES + "\n")
    assert list(m.functions) == ["f", "sizes"] and m.entry.name == "f" and m.entry.linear == {0}
    assert print_module(m) == LOOP + "\n\n" + SIZES + "\n" == str(m)


def test_sizes_are_the_values_they_name() -> None:
    f = parse_function(SIZES)
    x, n = f.args
    assert x.type == TensorType(F64, (Size(n, 21), 2)) and n.type == scalar(I64) and n.owner is f.body
    m, i, s = (op.result for op in f.body.ops[:3])
    assert i.type.shape == (Size(m, 3),) and s.type.shape[0] is GROWS


def same(a: Block, b: Block, names: dict[Value, Value]) -> bool:
    """Whether two blocks are equal up to which objects their values are."""

    def renamed(x):
        if isinstance(x, Size):
            return (names.get(x.value, x.value), x.bound)
        if isinstance(x, TensorType):
            return (x.dtype, renamed(x.shape))
        if isinstance(x, np.ndarray):
            return (x.dtype, x.shape, x.tobytes())
        return tuple(map(renamed, x)) if isinstance(x, tuple) else repr(x)

    names.update(zip(a.args, b.args))
    ok = [renamed(v.type) for v in a.args] == [renamed(v.type) for v in b.args] and len(a.ops) == len(b.ops)
    for p, q in zip(a.ops, b.ops):
        ok = ok and p.name == q.name and [names[v] for v in p.operands] == list(q.operands)
        ok = ok and {k: renamed(v) for k, v in p.attrs.items()} == {k: renamed(v) for k, v in q.attrs.items()}
        ok = ok and all(same(r, s, names) for r, s in zip(p.regions, q.regions))
        names.update(zip(p.results, q.results))
        ok = ok and [renamed(v.type) for v in p.results] == [renamed(v.type) for v in q.results]
    return ok and [names[v] for v in a.results] == list(b.results)


@given(random_functions(kinks=True))
def test_random_programs_come_back(p: Program) -> None:
    text = print_function(p.function)
    again = parse_function(text)
    verify(again)
    assert same(p.function.body, again.body, {})
    assert print_function(again) == text
    for x, y in zip(evaluate(p.function, p.args), evaluate(again, p.args)):
        assert x.tobytes() == y.tobytes()


@given(random_functions(kinks=True))
def test_random_programs_are_bounded(p: Program) -> None:
    """The strategy promises values that stay small and finite, for whoever compares results."""
    largest = []
    evaluate(p.function, p.args, on_op=lambda op, results, _: largest.extend(np.abs(r).max(initial=0) for r in results))
    assert np.isfinite(largest).all() and max(largest, default=0) < 30
    assert len(list(walk(p.function.body))) == len(list(walk(parse_function(str(p.function)).body)))


ERRORS = {
    "func @f(%x: f64) -> (f64) {\n  %y = sin %z : f64\n  return %y\n}": """\
line 2, column 12: %z is not defined here
    %y = sin %z : f64
             ^""",
    "func @f(%x: f63) -> () {\n  return\n}": """\
line 1, column 13: expected a type, found f63; the element types are bool, i8, i16, i32, i64, u8, u16, u32, u64, f16, \
bf16, f32, f64, c64, c128
  func @f(%x: f63) -> () {
              ^""",
    "func @f(%x: f64) -> (f32) {\n  return %x\n}": """\
line 1, column 22: expected f64, the type of what is returned
  func @f(%x: f64) -> (f32) {
                       ^""",
    "func @f(%x: f64) -> (f64, f64) {\n  return %x\n}": """\
line 1, column 21: 2 result types, but 1 values are returned
  func @f(%x: f64) -> (f64, f64) {
                      ^""",
    "func @f(%x: f64, %x: f64) -> () {\n  return\n}": """\
line 1, column 18: %x is defined a second time
  func @f(%x: f64, %x: f64) -> () {
                   ^""",
    "func @f(%x: f64[%n<=3]) -> () {\n  return\n}": """\
line 1, column 17: %n is not defined here
  func @f(%x: f64[%n<=3]) -> () {
                  ^""",
    "func @f(%x: f64[2.5]) -> () {\n  return\n}": """\
line 1, column 17: expected an integer, found 2.5
  func @f(%x: f64[2.5]) -> () {
                  ^""",
    "func @f() -> () {\n  %a, %b = op : f64\n  return\n}": """\
line 2, column 17: 1 types for 2 results
    %a, %b = op : f64
                  ^""",
    "func @f() -> () {\n  %a = constant {value = [1.5]} : i64[1]\n  return\n}": """\
line 2, column 26: this is not a value of type i64[1]
    %a = constant {value = [1.5]} : i64[1]
                           ^""",
    "func @f() -> () {\n  %a = constant {value = [1, 2]} : f64[3]\n  return\n}": """\
line 2, column 26: this is not a value of type f64[3]
    %a = constant {value = [1, 2]} : f64[3]
                           ^""",
    "func @f() -> () {\n  op {a = 1, a = 2}\n  return\n}": """\
line 2, column 14: attribute a is given a second time
    op {a = 1, a = 2}
               ^""",
    "func @f() -> () {\n  op {a = what}\n  return\n}": """\
line 2, column 11: expected the value of an attribute, found what
    op {a = what}
            ^""",
    "func @f(%p: bool) -> () {\n  if %p {\n  }\n  return\n}": """\
line 3, column 3: expected an operation, yield or return, found }
    }
    ^""",
    "func @f() -> () {\n  return": """\
line 2, column 9: expected '}', found the end
    return
          ^""",
    "func @f() -> () {\n  $\n}": """\
line 2, column 3: unexpected character '$'
    $
    ^""",
    "func @f() -> () {\n  return\n}\nfunc @f() -> () {\n  return\n}": """\
line 4, column 1: @f is defined a second time
  func @f() -> () {
  ^""",
    "# nothing\n": """\
line 2, column 1: expected func
  
  ^""",  # noqa: W293
}


@pytest.mark.parametrize(("text", "message"), ERRORS.items(), ids=range(len(ERRORS)))
def test_errors_point_at_the_place(text: str, message: str) -> None:
    with pytest.raises(ParseError) as e:
        parse_module(text)
    assert str(e.value) == message
    assert message.startswith(f"line {e.value.line}, column {e.value.column}: {e.value.reason}")


def test_one_function_means_one() -> None:
    with pytest.raises(ParseError, match="expected the end after one function, found func"):
        parse_function(LOOP + LOOP)


def test_an_undefined_value_prints_as_such() -> None:
    stranger = Value(scalar(F64), "z")
    op = Op("sin", [stranger], [Value(scalar(F64), "y")])
    assert "  %y = sin %z? : f64" in print_function(Function("f", Block([], [op], op.results)))


def test_every_dtype_has_a_name_in_text() -> None:
    for name, dtype in DTYPES.items():
        f = parse_function(f"func @f(%x: {name}[2]) -> ({name}[2]) {{\n return %x\n}}")
        assert f.arg_types == (TensorType(dtype, (2,)),)
    assert {BOOL, U64, C64} <= set(DTYPES.values()) and isinstance(Module.of(f), Module)


def test_large_constants_may_be_abbreviated() -> None:
    b = Builder([])
    large, small = (b.constant(np.arange(float(n)).reshape(2, -1)) for n in (1002, 1000))
    f = b.function("f", [large, small])
    text = print_function(f, full=False)
    assert "[[0.0, 1.0, 2.0, ..., 498.0, 499.0, 500.0], [501.0, 502.0, 503.0, ..., 999.0, 1000.0, 1001.0]]" in text
    assert text.count("...") == 2
    with pytest.raises(ParseError):
        parse_function(text)
    assert print_function(parse_function(print_function(f))) == print_function(f)
