"""Runs named checks and counts them: one line each, a last line with the sums, and the exit status.

A check is a function that raises when something is wrong. Each one runs, whatever happened to those before it.
"""

import argparse
import pathlib
import sys

ZOO = pathlib.Path(__file__).resolve().parents[2] / "models" / "zoo"


class Checks:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, name, check, *arguments):
        """Calls the check. What it returns, if anything, is printed behind its name."""
        try:
            note = check(*arguments)
        except Exception as error:  # A peer may raise anything; all of it is a failed check.
            self.failed += 1
            why = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"FAIL {name}: {why[:600]}", flush=True)
        else:
            self.passed += 1
            print(f"ok {name}" + (f": {note}" if note else ""), flush=True)

    def finish(self):
        """Prints the sums and ends the process: 0 if every check passed."""
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed or not self.passed else 0)


def parser(description):
    """Command line of every peer: where the server listens."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--http", required=True, metavar="HOST:PORT")
    made.add_argument("--grpc", required=True, metavar="HOST:PORT")
    return made


def require(condition, what):
    if not condition:
        raise AssertionError(what)


def equal(actual, expected, what):
    require(actual == expected, f"{what}: expected {expected!r}, got {actual!r}")
