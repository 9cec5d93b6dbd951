"""Every operation, from its definition alone: a new one is tested without a new test."""

import pathlib
import re

import numpy as np
import pytest
from programs_ir import OpCase, one_op, op_cases

from dflow.ir.core import Function
from dflow.ir.evaluator import evaluate
from dflow.ir.linearity import linear_groups
from dflow.ir.ops import TABLES
from dflow.ir.ops.document import document
from dflow.ir.parser import parse_function
from dflow.ir.registry import OPS
from dflow.ir.types import BOOL, F64, type_of_array
from dflow.ir.verifier import verify

CONTROL = ("if", "for", "while", "kernel", "call", "check", "custom", "reverse_only", "print", "warn", "breakpoint")
SLICES = ("gather_slices", "scatter_slices", "slice_number")  # without a meaning of their own, see test_collectives
CASES = op_cases()


@pytest.mark.filterwarnings("ignore::numpy.exceptions.ComplexWarning")
@pytest.mark.parametrize("name", OPS)
def test_reference_is_typed_and_deterministic(name: str) -> None:
    """For every sample and dtype: verifies, evaluates to the inferred types, twice the same, and prints back."""
    for case in (c for c in CASES if c.name == name):
        f, args = one_op(case.name, case.sample, case.dtype)
        verify(f)
        first, second = evaluate(f, args), evaluate(f, args)
        for result, again, t in zip(first, second, f.result_types):
            assert type_of_array(result) == t, case
            assert result.tobytes() == again.tobytes(), case
        assert str(parse_function(str(f))) == str(f), case


@pytest.mark.parametrize("name", OPS)
def test_evaluation_leaves_its_operands_alone(name: str) -> None:
    for case in (c for c in CASES if c.name == name and c.dtype is F64):
        f, args = one_op(case.name, case.sample)
        before = [a.copy() for a in args]
        for result in evaluate(f, args):
            result[...] = 0
        assert all(a.tobytes() == b.tobytes() for a, b in zip(args, before)), case


@pytest.mark.parametrize("name", OPS)
def test_definition_is_complete(name: str) -> None:
    op = OPS[name]
    assert op.doc and op.doc.strip() == op.doc
    if name in (*CONTROL, *SLICES):
        return
    assert op.reference is not None
    assert op.samples or name in ("empty", "sequence", "tape"), "has no sample"
    assert op.jvp or op.no_derivative, "has neither a derivative nor a reason why not"
    assert not (op.jvp and op.no_derivative)
    assert op.jvp or not op.linear, "is linear, so it has a derivative"
    assert bool(op.transpose) == bool(op.linear), "linear operations and only they have a transpose"


@pytest.mark.parametrize("name", OPS)
def test_samples_cover_the_dtypes(name: str) -> None:
    covered = {c.dtype for c in CASES if c.name == name}
    missing = set(OPS[name].dtypes) - covered - {BOOL}
    assert not missing or name in (*CONTROL, *SLICES), f"no sample runs for {missing}"


@pytest.mark.parametrize("name", [n for n in OPS if OPS[n].linear])
def test_linear_groups(name: str) -> None:
    for case in op_cases(smooth=True, dtypes=[F64]):
        if case.name == name:
            f, args = one_op(name, case.sample)
            for group in linear_groups(f.body.ops[0]):
                assert _is_affine(f, args, group), (case, group)


def _is_affine(f: Function, args: list[np.ndarray], group: tuple[int, ...]) -> bool:
    """Whether f(x + 2 t) - f(x) = 2 (f(x + t) - f(x)) for a direction t of the operands in the group."""
    rng = np.random.default_rng(0)
    directions = [rng.integers(-3, 4, np.shape(a)) * (k in group) for k, a in enumerate(args)]

    def at(scale: float) -> np.ndarray:
        moved = [a + scale * t if k in group else a for k, (a, t) in enumerate(zip(args, directions))]
        return evaluate(f, moved)[0]

    return np.allclose(at(2.0) - at(0.0), 2 * (at(1.0) - at(0.0)), rtol=1e-12, atol=1e-12)


def test_every_operation_stands_in_one_table() -> None:
    assert sorted(name for names in TABLES.values() for name in names) == sorted(OPS)


def test_page_of_operations_is_current() -> None:
    page = pathlib.Path(__file__).parents[2] / "docs" / "operations.md"
    assert page.read_text() == document(), "run: python -m dflow.ir.ops.document > docs/operations.md"


def test_page_of_operations_has_rows_of_one_width() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    assert len(rows) == len(OPS)
    assert {len(re.split(r"(?<!\\)\|", row)) for row in rows} == {8}


def test_cases_have_distinct_names() -> None:
    assert len({str(c) for c in CASES}) == len(CASES) and isinstance(CASES[0], OpCase)
