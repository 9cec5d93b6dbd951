"""The GPU: functions as PTX kernels and a plan of launches.

``compile_function`` (``compiler.py``) makes a `LaunchPlan` (``plan.py``), which needs no driver. The launch layer
(``driver.py``, ``memory.py``) runs it.
"""
