"""The typed SSA intermediate representation: types, operations, text format, verifier, evaluator, passes."""

if __name__ != "dflow.ir":
    raise ImportError(f"this package is imported as 'dflow.ir', not as {__name__!r}")
