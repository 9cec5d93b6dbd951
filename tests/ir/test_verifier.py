"""What the verifier refuses, with the text of each refusal, and what it lets pass."""

import pytest
from hypothesis import given
from programs_ir import Program, random_functions

from dflow.ir.builder import Builder, clone_function
from dflow.ir.core import Block, Function, Location, Op, Value
from dflow.ir.evaluator import evaluate
from dflow.ir.parser import parse_function, parse_module
from dflow.ir.types import BOOL, F64, GROWS, I64, Size, TensorType, scalar
from dflow.ir.verifier import VerificationError, verify, verify_module


def refusal(text: str) -> str:
    """The message for the one function in ``text``, without its first words."""
    with pytest.raises(VerificationError) as e:
        verify(parse_function(text))
    head, rest = str(e.value).split("\n", 1)
    assert head.startswith("@f does not verify, line ")
    return rest


def body(*lines: str, args: str = "%x: f64, %v: f64[3], %n: i64, %p: bool", results: str = "") -> str:
    return f"func @f({args}) -> ({results}) {{\n" + "\n".join(lines) + "\n return\n}"


TYPES = {
    body("%y = sin %n : i64"): """\
  %y = sin %n : i64
       ^^^ does not take i64; it takes f16, bf16, f32, f64""",
    body("%y = sin %x : f32"): """\
  %y = sin %x : f32
  ^^ has type f32, expected f64""",
    body("%y = add %x, %v : f64"): """\
  %y = add %x, %v : f64
       ^^^ operands must have one type, got f64, f64[3]""",
    body("%y, %z = sin %x : f64, f64"): """\
  %y, %z = sin %x : f64, f64
           ^^^ has 2 results, expected 1""",
    body("%y = sine %x : f64"): """\
  %y = sine %x : f64
       ^^^^ is not an operation""",
    body("%y = sin %x {fast = True} : f64"): """\
  %y = sin %x {fast = True} : f64
       ^^^ has no attribute 'fast'""",
    body('%y = reduce %v {kind = "sum", keep = 1} : f64'): """\
  %y = reduce %v {kind = "sum", keep = 1} : f64
       ^^^^^^ has no attribute 'keep'; it has kind, axes""",
    body('%y = reduce %v {kind = "sum"} : f64'): """\
  %y = reduce %v {kind = "sum"} : f64
       ^^^^^^ lacks the attribute 'axes'""",
    body('%y = reduce %v {kind = "sum", axes = 0} : f64'): """\
  %y = reduce %v {kind = "sum", axes = 0} : f64
       ^^^^^^ has operands or attributes that do not fit (TypeError: 'int' object is not iterable)""",
    body("%y = sin %x { yield %x } : f64"): """\
  %y = sin %x {
       ^^^ has 1 regions, expected 0""",
    body("%i = iota {size = %x<=3} : i64[%x<=3]"): """\
  %i = iota {size = %x<=3} : i64[%x<=3]
                    ^^ is a size and must be i64, not f64""",
    body("%y = empty : f64[2, *]"): """\
  %y = empty : f64[2, *]
  ^^ has type f64[2, *]; only the leading axis may grow""",
    body("%y = empty : f64[-1]"): """\
  %y = empty : f64[-1]
  ^^ has type f64[-1], whose size -1 is not a size""",
    body("%s = sequence : f64[*]", "%y = cos %s : f64[*]"): """\
  %y = cos %s : f64[*]
           ^^ does not apply to a sequence: it may give other than zero for zero""",
    body("%y = broadcast %x {shape = (*, 2), dims = ()} : f64[*, 2]"): """\
  %y = broadcast %x {shape = (*, 2), dims = ()} : f64[*, 2]
       ^^^^^^^^^ cannot make a sequence""",
    body('check %x {error = "ValueError", message = ""}'): """\
  check %x {error = "ValueError", message = ""}
  ^^^^^ the first operand is a bool scalar""",
}

REGIONS = {
    body("if %x {", "yield", "} else {", "yield", "}"): """\
  if %x {
  ^^ takes one bool scalar""",
    body("if %p {", "yield", "}"): """\
  if %p {
  ^^ has 1 regions, expected 2""",
    body("%r = if %p {", "yield %x", "} else {", "yield %n", "} : f64"): """\
  yield %n
        ^^ yields i64, expected f64""",
    body("%r = if %p {", "yield %x", "} else {", "yield", "} : f64"): """\
  yield
  ^ yields 0 values, expected 1""",
    body("for %x { (%k: i64)", "yield", "}"): """\
  for %x { (%k: i64)
  ^^^ takes an i64 count first""",
    body("%r = for %n, %x { (%k: i64)", "yield", "} : f64"): """\
  %r = for %n, %x { (%k: i64)
       ^^^ takes 1 values, expected 2""",
    body("%r = for %n, %x { (%k: i64, %a: f32)", "yield %x", "} : f64"): """\
  %r = for %n, %x { (%k: i64, %a: f32)
                              ^^ takes f32, expected f64""",
    body("%r = for %n, %x { (%k: i64, %a: f64)", "yield %k", "} : f64"): """\
  yield %k
        ^^ yields i64, expected f64""",
    body("%r = while %x { (%a: f64)", "yield %a", "} do { (%b: f64)", "yield %b", "} : f64"): """\
  yield %a
        ^^ yields f64, expected bool""",
    body("%r = while %x { (%a: f64)", "yield %p", "} do { (%b: f64)", "yield %v", "} : f64"): """\
  yield %v
        ^^ yields f64[3], expected f64""",
}

KERNEL = '%r = kernel {domain = (3,), reduced = 0, combine = ("",)} { (%i: i64)'
KERNELS = {
    body(KERNEL, "%y = sin %v : f64[3]", "yield %x", "} : f64[3]"): """\
  %y = sin %v : f64[3]
           ^^ is f64[3]; a kernel reads one element of a tensor at a time""",
    body(KERNEL, '%y = extract %v, %i {index = (("slice", 1, 1),)} : f64[1]', "yield %x", "} : f64[3]"): """\
  %y = extract %v, %i {index = (("slice", 1, 1),)} : f64[1]
               ^^ is f64[3]; a kernel reads one element of a tensor at a time""",
    body(KERNEL, "%y = iota {size = 2} : i64[2]", "yield %x", "} : f64[3]"): """\
  %y = iota {size = 2} : i64[2]
  ^^ is i64[2]; a kernel has only scalars inside""",
    body(KERNEL, 'check %p {error = "ValueError", message = ""}', "yield %x", "} : f64[3]"): """\
  check %p {error = "ValueError", message = ""}
  ^^^^^ cannot stand in a kernel""",
    body(KERNEL, "yield %v", "} : f64[3]"): """\
  yield %v
        ^^ yields f64[3], expected a scalar""",
    body(KERNEL.replace("(%i: i64)", "(%i: i64, %j: i64)"), "yield %x", "} : f64[3]"): """\
  %r = kernel {domain = (3,), reduced = 0, combine = ("",)} { (%i: i64, %j: i64)
       ^^^^^^ takes 2 values, expected 1""",
    body(KERNEL.replace("= 0", "= 1").replace('""', '"mean"'), "yield %x", "} : f64"): """\
  %r = kernel {domain = (3,), reduced = 1, combine = ("mean",)} { (%i: i64)
       ^^^^^^ combines by 'mean', expected one of sum, prod, max, min, any, all""",
    body(KERNEL.replace('""', '"sum"'), "yield %x", "} : f64[3]"): """\
  %r = kernel {domain = (3,), reduced = 0, combine = ("sum",)} { (%i: i64)
       ^^^^^^ combines by 'sum', expected "" since it reduces no axis""",
    body(KERNEL.replace("= 0", "= 1").replace('""', '"all"'), "yield %x", "} : f64"): """\
  yield %x
        ^^ is f64, which all does not take""",
    body(KERNEL.replace("= 0", "= 2"), "yield %x", "} : f64"): """\
  %r = kernel {domain = (3,), reduced = 2, combine = ("",)} { (%i: i64)
       ^^^^^^ reduces 2 of 1 axes""",
    body(KERNEL.replace("kernel", "kernel %x"), "yield %x", "} : f64[3]"): """\
  %r = kernel %x {domain = (3,), reduced = 0, combine = ("",)} { (%i: i64)
       ^^^^^^ takes no operands: its region uses values from around it""",
    body(KERNEL, "yield", "} : f64[3]"): """\
  %r = kernel {domain = (3,), reduced = 0, combine = ("",)} { (%i: i64)
       ^^^^^^ has 1 kinds in combine for 0 results""",
}


def linear(*lines: str, args: str = "%x: lin f64, %y: lin f64, %c: f64, %n: i64, %p: bool") -> str:
    return body(*lines, args=args)


LINEARITY = {
    linear("%r = sin %x : f64"): """\
  %r = sin %x : f64
           ^^ is linear, and sin is not linear in it""",
    linear("%r = mul %x, %y : f64"): """\
  %r = mul %x, %y : f64
           ^^ is linear, as is another operand: mul is not linear in both""",
    linear("%r = div %c, %x : f64"): """\
  %r = div %c, %x : f64
               ^^ is linear, and div is not linear in it""",
    linear("%r = add %c, %x : f64"): """\
  %r = add %c, %x : f64
               ^^ is linear, and another operand is not: the result would be affine""",
    linear('%r = reduce %x {kind = "max", axes = ()} : f64'): """\
  %r = reduce %x {kind = "max", axes = ()} : f64
              ^^ is linear, and reduce is not linear in it""",
    linear("%r = convert %x {dtype = i64} : i64"): """\
  %r = convert %x {dtype = i64} : i64
               ^^ is linear, and convert is not linear in it""",
    linear("%r = if %p {", "yield %x", "} else {", "yield %c", "} : f64"): """\
  yield %c
        ^^ is free of it here and linear on the other way: neither linear nor constant""",
    linear("%r = for %n, %c { (%k: i64, %a: f64)", "yield %x", "} : f64"): """\
  yield %x
        ^^ is linear here and free of it on the other way: neither linear nor constant""",
    # %a becomes linear only after the first iteration, %b after the second, and then it is multiplied with itself.
    linear(
        "%z = constant {value = 0.0} : f64",
        "%r, %s = for %n, %z, %z { (%k: i64, %a: f64, %b: f64)",
        "%q = mul %b, %b : f64",
        "yield %x, %a",
        "} : f64, f64",
    ): """\
  %q = mul %b, %b : f64
           ^^ is linear, as is another operand: mul is not linear in both""",
    linear(
        "%r = while %x { (%a: f64)", "%go = lt %a, %c : bool", "yield %go", "} do { (%b: f64)", "yield %b", "} : f64"
    ): """\
  %go = lt %a, %c : bool
           ^^ is linear, and lt is not linear in it""",
    linear('%r = kernel {domain = (2,), reduced = 1, combine = ("prod",)} { (%i: i64)', "yield %x", "} : f64"): """\
  yield %x
        ^^ is linear, and prod is not linear in it""",
    linear(args="%n: lin i64"): """\
  func @f(%n: lin i64) -> () {
          ^^ cannot be linear in a i64""",
}

ALL = {**TYPES, **REGIONS, **KERNELS, **LINEARITY}


@pytest.mark.parametrize(("text", "message"), ALL.items(), ids=range(len(ALL)))
def test_refusals(text: str, message: str) -> None:
    assert refusal(text) == message


def test_the_message_names_place_and_pass() -> None:
    f = parse_function('func @f(%n: i64) -> (f64) {\n  %1 = sin %n : f64  @ "model.py":12\n  return %1\n}')
    with pytest.raises(VerificationError) as e:
        verify(f, after="cse")
    assert str(e.value) == (
        "@f does not verify after cse, line 2 (model.py:12):\n"
        "  %0 = sin %n : f64\n"
        "       ^^^ does not take i64; it takes f16, bf16, f32, f64"
    )


def test_long_lines_are_cut_around_the_caret() -> None:
    names = ", ".join(f"%argument_{k}: f64" for k in range(40))
    text = f"func @f({names}, %n: lin i64) -> () {{\n return\n}}"
    line, caret = refusal(text).split("\n")
    assert len(line) < 130 and line.startswith("  ...") and "%n: lin i64" in line
    assert line[caret.index("^") :].startswith("%n:")


# -- what the parser would not read ------------------------------------------------------------------------------------


def raised(f: Function) -> str:
    with pytest.raises(VerificationError) as e:
        verify(f)
    return str(e.value).split("\n", 1)[1]


def test_use_before_definition() -> None:
    x, y, z = (Value(scalar(F64), h) for h in "xyz")
    late, early = Op("sin", [y], [z]), Op("cos", [x], [y])
    assert raised(Function("f", Block([x], [late, early], [z]))) == (
        "  %z = sin %y? : f64\n           ^^ is used here and not defined before"
    )


def test_use_of_another_function_or_of_a_finished_region() -> None:
    stranger = Value(scalar(F64), "s")
    assert (
        raised(Function("f", Block([], [], [stranger])))
        == "  return %s?\n         ^^^ is used here and not defined before"
    )
    p, x = Value(scalar(BOOL), "p"), Value(scalar(F64), "x")
    inner = Op("sin", [x], [Value(scalar(F64), "y")])
    branch = Op("if", [p], [], {}, [Block([], [inner], []), Block()])
    assert raised(Function("f", Block([p, x], [branch], inner.results))) == (
        "  return %y\n         ^^ is used here and not defined before"
    )


def test_size_from_nowhere() -> None:
    n = Value(scalar(I64), "n")
    x = Value(TensorType(F64, (Size(n, 3),)), "x")
    assert raised(Function("f", Block([x], [], []))) == (
        "  func @f(%x: f64[%n?<=3]) -> () {\n                  ^^^ is used here and not defined before"
    )


def test_defined_twice() -> None:
    x, y = Value(scalar(F64), "x"), Value(scalar(F64), "y")
    first, second = Op("sin", [x], [y]), Op("cos", [x], [y], loc=Location("model.py", 4))
    assert (
        raised(Function("f", Block([x], [first, second], [y]))) == "  %y = cos %x : f64\n  ^^ is defined a second time"
    )


def test_constant_of_another_shape() -> None:
    op = Op("constant", [], [Value(TensorType(F64, (2,)), "c")], {"value": 1.0, "type": TensorType(F64, (2,))})
    assert raised(Function("f", Block([], [op], []))) == (
        "  %c = constant {value = 1.0} : f64[2]\n       ^^^^^^^^ has a value of shape [] and the type f64[2]"
    )


# -- modules -----------------------------------------------------------------------------------------------------------

MODULE = """
func @main(%x: f64, %n: i64) -> (f64) {{
  %r = call {operands} {{callee = "{callee}"}} : {type}
  return %x
}}
func @g(%a: f64, %b: i64) -> (f64) {{
  return %a
}}
"""


@pytest.mark.parametrize(
    ("operands", "callee", "type", "reason"),
    [
        ("%x, %n", "h", "f64", "calls @h, which the module does not have"),
        ("%x, %x", "g", "f64", "calls @g with f64, expected i64"),
        ("%x", "g", "f64", "calls @g with 1 values, expected 2"),
        ("%x, %n", "g", "f32", "calls @g for f32, expected f64"),
    ],
)
def test_calls_fit_their_callees(operands: str, callee: str, type: str, reason: str) -> None:
    verify_module(parse_module(MODULE.format(operands="%x, %n", callee="g", type="f64")))
    with pytest.raises(VerificationError) as e:
        verify_module(parse_module(MODULE.format(operands=operands, callee=callee, type=type)))
    assert str(e.value).endswith(reason)


def test_sizes_go_through_calls() -> None:
    verify_module(
        parse_module("""
    func @main(%m: i64) -> (f64[%m<=4]) {
      %one = constant {value = 1.0} : f64
      %x = broadcast %one {shape = (%m<=4,), dims = ()} : f64[%m<=4]
      %y = call %m, %x {callee = "twice"} : f64[%m<=4]
      return %y
    }
    func @twice(%n: i64, %x: f64[%n<=4]) -> (f64[%n<=4]) {
      %y = add %x, %x : f64[%n<=4]
      return %y
    }
    """)
    )


def test_linear_calls() -> None:
    text = """
    func @main(%x: lin f64, %c: f64) -> (f64) {{
      %y = call %x, %c {{callee = "g"}} : f64
      return %y
    }}
    func @g(%a: {} f64, %b: f64) -> (f64) {{
      %r = mul %a, %b : f64
      return %r
    }}
    """
    verify_module(parse_module(text.format("lin")))
    with pytest.raises(VerificationError, match="is linear, and @g is not declared linear in it"):
        verify_module(parse_module(text.format("")))


def test_a_module_knows_functions_by_their_names() -> None:
    m = parse_module("func @f() -> () {\n return\n}")
    m.functions["g"] = m.functions.pop("f")
    with pytest.raises(VerificationError, match="the module has @f under the name @g"):
        verify_module(m)


# -- what passes -------------------------------------------------------------------------------------------------------

VALID = [
    linear(  # an accumulator that starts from zero; a zero among linear operands; an unlinear factor
        "%z = constant {value = 0.0} : f64",
        "%r = for %n, %z { (%k: i64, %a: f64)",
        "%t = mul %x, %c : f64",
        "%b = add %a, %t : f64",
        "yield %b",
        "} : f64",
        "%s = sub %z, %r : f64",
    ),
    linear(  # cotangents of loops go into a sequence and come out of it
        "%s = sequence : f64[*]",
        '%t = update %s, %x, %n {index = ("at",)} : f64[*]',
        "%u = add %s, %t : f64[*]",
        '%e = extract %u, %n {index = ("at",)} : f64',
    ),
    linear("%z = constant {value = 0.0} : f64", "%r = if %p {", "yield %x", "} else {", "yield %z", "} : f64"),
    linear("%r = select %p, %x, %y : f64", "%q = select %p, %x, %c : f64"),
    body(  # a count beside what it bounds, yielded together
        "%r, %s = if %p {",
        "%m = add %n, %n : i64",
        "%i = iota {size = %m<=9} : i64[%m<=9]",
        "yield %m, %i",
        "} else {",
        "%j = iota {size = %n<=9} : i64[%n<=9]",
        "yield %n, %j",
        "} : i64, i64[%r<=9]",
    ),
]


@pytest.mark.parametrize("text", VALID, ids=range(len(VALID)))
def test_valid_programs_pass(text: str) -> None:
    verify(parse_function(text))


@given(random_functions(kinks=True))
def test_random_programs_verify_and_so_do_their_clones(p: Program) -> None:
    verify(p.function)
    verify(clone_function(p.function))


def test_a_size_yielded_by_one_branch_is_not_the_size_of_both() -> None:
    text = body(
        "%r, %s = if %p {",
        "%i = iota {size = %n<=9} : i64[%n<=9]",
        "yield %n, %i",
        "} else {",
        "%m = add %n, %n : i64",
        "%j = iota {size = %m<=9} : i64[%m<=9]",
        "yield %m, %j",
        "} : i64, i64[%n<=9]",
    )
    assert refusal(text).endswith("^^ has type i64[%n<=9], expected i64[%r<=9]")
    verify(parse_function(text.replace(": i64, i64[%n<=9]", ": i64, i64[%r<=9]")))


def test_the_builder_names_sizes_that_branches_yield() -> None:
    def branch(b: Builder, m: Value) -> list[Value]:
        return [m, b.iota(size=Size(m, 9))]

    b = Builder([scalar(I64), scalar(BOOL)], ["n", "p"])
    n, p = b.args
    count, part = b.if_(p, lambda b: branch(b, n), lambda b: branch(b, b.add(n, 1)))
    assert part.type == TensorType(I64, (Size(count, 9),))
    f = b.function("f", [count, part])
    verify(f)
    assert [r.tolist() for r in evaluate(f, [2, False])] == [3, [0, 1, 2]]
    (same,) = b.if_(p, lambda b: [b.iota(size=Size(n, 9))], lambda b: [b.iota(size=Size(n, 9))])
    assert same.type == TensorType(I64, (Size(n, 9),))


def test_linear_parameter_that_is_not_there() -> None:
    assert "has no parameter 3 to be linear in" in raised(Function("f", Block(), frozenset([3])))


def test_sequences_are_types() -> None:
    assert TensorType(F64, (GROWS,)).grows
