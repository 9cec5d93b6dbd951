"""Errors name the user's line, what was seen and the mend: the exact text of each."""

import numpy as np
import pytest

from dflow import errors

X = np.array([2.0, 1.0, 3.0])

CASES = {
    "carried shape": (
        """
        def f(x):
            y = x
            i = 0.0
            while i < x[0]:
                y = np.concatenate([y, x])
                i += 1.0
            return y.sum()
        """,
        errors.CarriedError,
        """
        case.py:7: variable 'y' changes its type in the loop at line 7: from f64[3] to f64[6]
            while i < x[0]:
                  ^^^^^^^^
        wanted: what a loop carries keeps its shape and structure
        mend: make the array in its full size before the loop and fill it in the loop
        """,
    ),
    "habit of another library": (
        """
        def f(x):
            x = np.sin(x).block_until_ready()
            return x
        """,
        errors.TraceAttributeError,
        """
        case.py:5: a traced array has no attribute .block_until_ready
            x = np.sin(x).block_until_ready()
                ^^^^^^^^^^^^^^^^^^^^^^^^^^^
        seen: <traced f64[3]>
        mend: leave it out: results are there when a call returns
        """,
    ),
    "deleted element": (
        """
        def f(x):
            del x[0]
            return x
        """,
        errors.TraceError,
        """
        case.py:5: elements cannot be deleted from an array
            del x[0]
                ^^^^
        seen: <traced f64[3]>
        mend: np.delete(x, k) and slices (x[1:]) give an array without them
        """,
    ),
    "item of several": (
        """
        def f(x):
            return x.item()
        """,
        errors.ShapeError,
        """
        case.py:5: only an array of one element can be converted to a number
            return x.item()
                   ^^^^^^^^
        seen: <traced f64[3]>
        mend: x.item(k) or x[k] is one of several elements
        """,
    ),
    "number from a text": (
        """
        def f(x):
            return float(f"{x[0]:.2f}")
        """,
        errors.NeedsStatic,
        """
        case.py:5: a text is made a number that is known only when the program runs
            return float(f"{x[0]:.2f}")
                   ^^^^^^^^^^^^^^^^^^^^
        seen: <traced f64>
        mend: print it, or make texts of results outside of the traced function
        """,
    ),
    "unknown keyword of a ufunc": (
        """
        def f(x):
            return np.sin(x, foo=3)
        """,
        errors.TraceError,
        """
        case.py:5: np.sin got an unexpected keyword argument 'foo'
            return np.sin(x, foo=3)
                   ^^^^^^^^^^^^^^^^
        """,
    ),
    "one branch": (
        """
        def f(x):
            if x[0] > 0:
                z = x[1]
            return z
        """,
        errors.UndefinedError,
        """
        case.py:7: variable 'z' is defined in one branch only, of the `if` at line 5
            return z
                   ^
        mend: give 'z' a value in the other branch, or before the `if`
        """,
    ),
    "captured array": (
        """
        def f(x):
            G[0] = x[0]
        """,
        errors.TraceError,
        """
        case.py:5: updating a captured array: it was made outside of the traced function, where the \
update would not be seen
            G[0] = x[0]
            ^^^^
        seen: an array of shape (3,)
        mend: pass it as an argument and return it, or update a copy (x = x.copy()) in the function
        """,
    ),
    "known index": (
        """
        def f(x):
            return x[7]
        """,
        errors.TraceIndexError,
        """
        case.py:5: index 7 is out of bounds for axis 0 with size 3
            return x[7]
                   ^^^^
        """,
    ),
    "string": (
        """
        def f(x):
            return x + "a"
        """,
        errors.TraceError,
        """
        case.py:5: 'add' of an array and a str
            return x + "a"
                   ^^^^^^^
        seen: <traced f64[3]> and 'a'
        wanted: arrays or numbers
        mend: keep strings and other objects out of array arithmetic
        """,
    ),
    "shapes": (
        """
        def f(x):
            return x + np.ones(4)
        """,
        errors.ShapeError,
        """
        case.py:5: operands could not be broadcast together with shapes (3,) and (4,)
            return x + np.ones(4)
                   ^^^^^^^^^^^^^^
        """,
    ),
    "list by a traced index": (
        """
        def f(x):
            i = int(x[0])
            return MIXED[i]
        """,
        errors.NeedsStatic,
        """
        case.py:6: a list is indexed by a value that is known only when the program runs
            return MIXED[i]
                   ^^^^^^^^
        seen: index <traced i64 (Python number)>
        wanted: an array, or a list of numbers of one type or of tuples of such; in a loop, a list of such lists
        mend: make it an array (np.array) or its numbers alike (1.0, not 1, among floats), or loop over it directly
        """,
    ),
    "truth of an array": (
        """
        def f(x):
            if x > 0:
                return x
            return -x
        """,
        errors.TraceError,
        """
        case.py:5: the truth value of an array with more than one element is ambiguous
            if x > 0:
               ^^^^^
        seen: <traced bool[3]>
        mend: use x.any() or x.all()
        """,
    ),
    "result in one branch": (
        """
        def f(x):
            if x[0] > 0:
                return x[0]
        """,
        errors.UndefinedError,
        """
        case.py:5: the result may be None: what a function returns may be None after the `if` at line 5
            if x[0] > 0:
               ^^^^^^^^
        wanted: a number or an array, whatever the arguments are
        mend: return a number in every case (np.nan, say), or a flag and a number
        """,
    ),
    "structure": (
        """
        def f(x):
            if x[0] > 0:
                t = (x, x)
            else:
                t = x
            return t
        """,
        errors.UndefinedError,
        """
        case.py:9: variable 't' has values of different structure in the branches of the `if` at line 5: \
(f64[3], f64[3]) and f64[3]
            return t
                   ^
        mend: make both of one type and shape
        """,
    ),
    "loop only": (
        """
        def f(x):
            while x[0] > 1:
                t = x[0]
            return t
        """,
        errors.UndefinedError,
        """
        case.py:7: variable 't' is defined only inside the loop at line 5, which may not run at all
            return t
                   ^
        mend: give 't' a value before the loop
        """,
    ),
    "list in a loop": (
        """
        def f(x):
            out = []
            for i in range(int(x[0])):
                out.append([x[i]])
            return sum(len(item) for item in out)
        """,
        errors.CarriedError,
        """
        case.py:6: a list from outside grows or shrinks inside a loop that is traced
            for i in range(int(x[0])):
                     ^^^^^^^^^^^^^^^^
        seen: list[0] is set or removed there
        mend: append numbers, arrays or tuples that are alike, and change the list in no other way; or fill an array
        """,
    ),
    "size without a bound": (
        """
        def f(x):
            return np.zeros(int(x[0]))
        """,
        errors.NeedsStatic,
        """
        case.py:5: the size of this array depends on the run, and nothing says how large it can become
            return np.zeros(int(x[0]))
                   ^^^^^^^^^^^^^^^^^^^
        mend: say how large it can become, `assert n <= 1000`, or derive it from the size of an array
        """,
    ),
    "carried size": (
        """
        def f(x):
            y = x[:2]
            for k in range(10000):
                y = np.append(y[:k], x[0])
            return y
        """,
        errors.CarriedError,
        """
        case.py:6: variable 'y' changes its type in the loop at line 6: from f64[2] to f64[%?<=3]
            for k in range(10000):
                     ^^^^^^^^^^^^
        wanted: what a loop carries keeps its shape and structure
        mend: make the array in its full size before the loop and fill it in the loop
        """,
    ),
    "integer array": (
        """
        def f(x):
            y = np.zeros(3, dtype=int)
            y += x
        """,
        errors.TraceError,
        """
        case.py:6: cannot update an array of int64 in place with a result of float64
            y += x
            ^^^^^^
        mend: make the array of float64 (dtype='float64'), or convert the result with astype
        """,
    ),
    "list from outside": (
        """
        LOG = []

        def f(x):
            LOG.append(x[0])
            return x
        """,
        errors.TraceError,
        """
        case.py:7: the function changes a list from outside, which would happen once, while tracing
            LOG.append(x[0])
            ^^^^^^^^^^^^^^^^
        seen: list[0] is assigned
        mend: pass the object as an argument, or return the new value and assign it outside
        """,
    ),
    "default argument": (
        """
        def helper(x, seen=[]):
            seen.append(x)
            return len(seen)

        def f(x):
            return helper(x[0]) * x
        """,
        errors.TraceError,
        """
        case.py:5: the function changes a list from outside, which would happen once, while tracing
            seen.append(x)
            ^^^^^^^^^^^^^^
        seen: list[0] is assigned
        mend: pass the object as an argument, or return the new value and assign it outside
        """,
    ),
    "attribute of a class": (
        """
        class Counter:
            count = 0

        def f(x):
            Counter.count += 1
            return x
        """,
        errors.TraceError,
        """
        case.py:8: the function changes the class Counter from outside, which would happen once, while tracing
            Counter.count += 1
            ^^^^^^^^^^^^^^^^^^
        seen: Counter.count is assigned
        mend: pass the object as an argument, or return the new value and assign it outside
        """,
    ),
    "attribute of an object": (
        """
        class Holder:
            pass

        HOLDER = Holder()

        def f(x):
            HOLDER.last = x[0]
            return x
        """,
        errors.TraceError,
        """
        case.py:10: the function changes a Holder from outside, which would happen once, while tracing
            HOLDER.last = x[0]
            ^^^^^^^^^^^
        seen: Holder.last is assigned
        mend: pass the object as an argument, or return the new value and assign it outside
        """,
    ),
    "elements by a condition": (
        """
        def f(x):
            return len(list(filter(lambda v: v > 1, x)))
        """,
        errors.NeedsStatic,
        """
        case.py:5: whether this holds is known only when the program runs
            return len(list(filter(lambda v: v > 1, x)))
                       ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        seen: <traced bool>
        mend: write `[v for v in x if condition]` over an array, or a `for` loop that appends to a list
        """,
    ),
    "sorting what is not alike": (
        """
        def f(x):
            return sorted([(x[0], 1), (x[1],)])[0][0]
        """,
        errors.TraceError,
        """
        case.py:5: sorted() by what is known only when the program runs, of items or keys that are not alike
            return sorted([(x[0], 1), (x[1],)])[0][0]
                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
        seen: keys [(f64, int 1), (f64)]
        mend: sort numbers, or by numbers (key=...) items of one type and shape; or use np.argsort
        """,
    ),
    "method of numbers": (
        """
        def f(x):
            return x[0].hex()
        """,
        errors.TraceAttributeError,
        """
        case.py:5: a traced number has no attribute .hex
            return x[0].hex()
                   ^^^^^^^^
        seen: <traced f64>
        mend: use the functions of dir(dflow.numpy), or do it outside of the traced function
        """,
    ),
    "text": (
        """
        def f(x):
            return "text"
        """,
        errors.TraceError,
        """
        case.py:5: the function returns a str, which is not an array or a number
            return "text"
                   ^^^^^^
        seen: 'text'
        mend: return arrays and numbers only
        """,
    ),
}

HEAD = "import numpy as np\nG = np.zeros(3)\nMIXED = ['a', 2, 'c']\n"


def dedent(text):
    return "\n".join(line[8:] for line in text.strip("\n").split("\n")).rstrip() + "\n"


@pytest.mark.parametrize("name", CASES)
def test_message(module, fails, name):
    source, kind, text = CASES[name]
    f = module(HEAD + dedent(source)).f
    assert fails(f, X, kind=kind) + "\n" == dedent(text)


def test_without_source(fails):
    space = {}
    exec("def f(x):\n    if x[0] > 0:\n        return x\n    return -x\n\ndef g(x):\n    return x * 2\n", space)
    text = fails(space["f"], X)
    assert "whether this holds is known only when the program runs" in text
    assert "`if` statement of a function whose source is a file" in text


def test_without_source_straight(check):
    space = {}
    exec("def g(x):\n    return x * 2\n", space)
    check(space["g"], X)


def test_tracebacks_show_the_users_line(module):
    import traceback

    from tests.tracing.conftest import traced

    f = module("def f(x):\n    if x[0] > 0:\n        return {}['missing']\n    return x\n").f
    with pytest.raises(KeyError) as e:
        traced(f, X)
    frames = [(s.filename, s.lineno) for s in traceback.extract_tb(e.value.__traceback__)]
    assert ("case.py", 3) in frames


def test_tracebacks_of_errors_in_the_users_code(module):
    """Those that dflow does not make itself are cut as well, and show no search for another program."""
    import traceback

    import dflow

    f = module('def f(p, x):\n    if x > 0:\n        x = x + p["missing"]\n    return x\n').f
    compiled = dflow.jit(f)
    compiled({"missing": 1.0}, 1.0)
    with pytest.raises(KeyError) as e:
        compiled({"other": 1.0}, 1.0)
    frames = traceback.extract_tb(e.value.__traceback__)[1:]
    assert [s.name for s in frames if s.filename != "case.py"] == ["_fallback"]
    assert frames[-1].lineno == 3
    assert e.value.__context__ is None


def test_arguments_that_do_not_fit():
    """Python's own message, also where a derivative stands between the call and the function."""
    import dflow

    def f(x, mode):
        return x.sum() if mode == "sum" else x.mean()

    x = np.ones((3, 2))
    for g in (dflow.jit(f), dflow.grad(f), dflow.vmap(dflow.grad(f)), dflow.jit(dflow.grad(f))):
        with pytest.raises(TypeError, match="missing 1 required positional argument: 'mode'") as e:
            g(x)
        assert not isinstance(e.value, errors.DflowError)
