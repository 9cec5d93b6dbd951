"""Runs all tests that need a GPU, and writes down each result as it comes.

    python tests/device_tests.py --out results --seconds 540

Each file of tests runs in a process of its own, some at a time. A test that does not end, or ends its process, is a
failure like others: its process is stopped, and another goes on behind it. When the time is up, the rest is left. The
folder gets ``results.txt``, a line for each test; ``failures.txt``, what the failed ones say; ``summary.txt``.
``--interpreter`` runs the same tests without a GPU. The status is 0 when all tests have passed, 1 when not, and 2 when
there is no GPU.

Pytest loads this file too (``-p device_tests``): it is what writes down the results.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

LOG = "DFLOW_TEST_LOG"  # where the results of one file go
TESTS = Path(__file__).parent
MARK = "\N{INFORMATION SEPARATOR ONE}"  # ends what a failure says
WITH_RESULTS = (0, 1, 5)  # the statuses of pytest when all tests were run: passed, failed, none chosen
ANSWER = 60  # seconds that the driver has to say what devices there are

# --- within pytest


def pytest_runtest_logstart(nodeid: str) -> None:
    _write("begins", nodeid)


def pytest_runtest_logreport(report) -> None:  # type: ignore[no-untyped-def]
    if report.failed or report.skipped or report.when == "call":
        text = "" if report.passed else str(report.longrepr[2] if report.skipped else report.longrepr)
        _write("error" if report.failed and report.when != "call" else report.outcome, report.nodeid, text)


def _write(outcome: str, test: str, text: str = "") -> None:
    if LOG in os.environ:
        with open(os.environ[LOG], "a", encoding="utf-8") as f:
            f.write(f"{outcome}\t{test}\t{text}{MARK}\n")


# --- outside


@dataclass
class File:
    """The tests of one file, and what is known of them."""

    path: Path
    log: Path
    done: dict[str, tuple[str, str]] = field(default_factory=dict)
    running: str | None = None
    is_complete: bool = False

    def read(self) -> None:
        if not self.log.exists():
            return
        *records, _ = self.log.read_text(encoding="utf-8").split(f"{MARK}\n")
        self.running = None
        for record in records:
            outcome, test, text = record.split("\t", 2)
            self.running = test if outcome == "begins" else None
            if outcome != "begins" and (test not in self.done or outcome not in ("passed", "skipped")):
                self.done[test] = outcome, text


@dataclass
class Session:
    """All that was asked for. ``patience``: seconds for one test."""

    out: Path
    until: float
    patience: float
    interpreter: bool
    under: list[str]

    def run(self, file: File) -> None:
        """Runs the tests of one file, in as many processes as it takes."""
        while time.monotonic() < self.until:
            before = len(file.done)
            status = self._process(file)
            file.read()
            if status in WITH_RESULTS and file.running is None:
                file.is_complete = True
                return
            name = file.running or str(file.path)
            said = (file.log.with_suffix(".out")).read_text(encoding="utf-8", errors="replace")[-2000:]
            if time.monotonic() >= self.until:
                return
            how = f"it took more than {self.patience:g} s" if status is None else f"its process ended with {status}"
            file.done[name] = "failed", f"{how}; what was printed last:\n{said}"
            if file.running is None or len(file.done) == before:
                return

    def _process(self, file: File) -> int | None:
        """Runs what is left of a file; the status with which the process has ended, None when it had to be stopped."""
        chosen = ["-m", "not device and not slow", "-k", "interpreter"] if self.interpreter else ["-m", "device"]
        left_out = [f"--deselect={test}" for test in file.done]
        command = [*self.under, sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:cacheprovider", "-o"]
        command += [
            "addopts=",
            "--import-mode=importlib",
            "-q",
            "-p",
            "device_tests",
            *chosen,
            *left_out,
            str(file.path),
        ]
        paths = [str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, LOG: str(file.log), "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        with open(file.log.with_suffix(".out"), "a", encoding="utf-8") as printed:
            process = subprocess.Popen(
                command, env=environment, cwd=TESTS.parent, stdout=printed, stderr=printed, start_new_session=True
            )
            try:
                return self._watch(process, file)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                process.wait()

    def _watch(self, process: subprocess.Popen[bytes], file: File) -> int | None:
        """Waits while something is written down; the status when the process has ended."""
        size, last = -1, time.monotonic()
        while process.poll() is None:
            now, length = time.monotonic(), file.log.stat().st_size if file.log.exists() else 0
            if length != size:
                size, last = length, now
                file.read()
            if now > self.until or now - last > self.patience:
                return None
            time.sleep(0.1)
        return process.returncode


def report(out: Path, files: list[File], started: float, is_last: bool) -> str:
    """Writes down what is known now."""
    lines, failures, counts = list[str](), list[str](), Counter[str]()
    for f in files:
        for test, (outcome, text) in list(f.done.items()):
            counts[outcome] += 1
            lines.append(f"{outcome:8} {test}")
            if outcome == "skipped":
                lines[-1] += f"  ({text})"
            elif outcome != "passed":
                failures.append(f"=== {test}\n{text}\n")
    said = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items())) or "no tests"
    seconds = time.monotonic() - started
    summary = f"{said} in {seconds:.0f} s" + ("" if is_last else ", and it goes on")
    if is_last and (cut := [f.path.name for f in files if not f.is_complete]):
        summary += f"; not done to the end: {', '.join(cut)}"
    failed = [line for line in lines if not line.startswith(("passed", "skipped"))]
    for name, text in (("results", lines), ("failures", failures), ("summary", [summary, *failed])):
        part = out / f"{name}.part"
        part.write_text("\n".join(text) + "\n", encoding="utf-8")
        part.replace(out / f"{name}.txt")
    return "\n".join([*failed, summary])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("files", nargs="*", type=Path, help="files of tests; all in tests/cuda when none is named")
    parser.add_argument("--out", type=Path, default=Path("device-tests"), help="the folder for results")
    parser.add_argument("--seconds", type=float, default=540, help="in all")
    parser.add_argument("--patience", type=float, default=90, help="seconds for one test")
    parser.add_argument("--jobs", type=int, default=4, help="processes at a time")
    parser.add_argument("--interpreter", action="store_true", help="without a GPU")
    parser.add_argument("--under", default="", help="a command that runs another, such as compute-sanitizer")
    given = parser.parse_args()
    started = time.monotonic()
    given.out.mkdir(parents=True, exist_ok=True)
    if not given.interpreter:
        look = "from dflow.backends.cuda.launch import driver; print(driver.device())"
        paths = os.pathsep.join(filter(None, [str(TESTS.parent), os.environ.get("PYTHONPATH", "")]))
        environment = {**os.environ, "PYTHONPATH": paths}
        try:
            found = subprocess.run(
                [sys.executable, "-c", look], capture_output=True, text=True, env=environment, timeout=ANSWER
            )
        except subprocess.TimeoutExpired:
            print(f"the driver has not answered for {ANSWER} s", flush=True)
            return 2
        print((found.stdout or found.stderr).strip().splitlines()[-1], flush=True)
        if found.returncode:
            return 2
    paths = given.files or sorted(TESTS.glob("cuda/test_*.py"), key=lambda p: -p.stat().st_size)
    logs = given.out.resolve() / "logs"
    logs.mkdir(exist_ok=True)
    files = [File(p.resolve(), logs / f"{p.stem}.log") for p in paths]
    for f in files:
        f.log.unlink(missing_ok=True)
        f.log.with_suffix(".out").unlink(missing_ok=True)
    session = Session(given.out, started + given.seconds, given.patience, given.interpreter, given.under.split())
    with ThreadPoolExecutor(given.jobs) as pool:
        waiting = [pool.submit(session.run, f) for f in files]
        try:
            while not all(w.done() for w in waiting):
                time.sleep(1.0)
                report(given.out, files, started, is_last=False)
        except KeyboardInterrupt:
            session.until = 0.0  # and the processes are stopped
    for w in waiting:
        w.result()
    print(report(given.out, files, started, is_last=True))
    outcomes = {outcome for f in files for outcome, _ in f.done.values()}
    return 0 if all(f.is_complete for f in files) and outcomes <= {"passed", "skipped"} else 1


if __name__ == "__main__":
    sys.exit(main())
