"""What is left of a running study: a line whenever a job ends, such as "12 of 96 jobs, about 41 minutes left".

Only the standard library: the workflow attaches `Progress` to Snakemake's logger when it starts. Expected seconds come
from `plan.json`, which `pygan plan` wrote; jobs that ended correct them for the machine as it is now.
"""

import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

Remaining = Callable[[], Iterable[tuple[int, str]]]
"""Number and name of every job that is not finished, running ones included."""

_FOUND_FINISHED = 0.1
"""A job that took less than this share of what was expected had its result in the work folder."""


def job_name(rule: str, wildcards: dict[str, str]) -> str:
    """Return the name under which the plan knows a job: its rule and the run, anchor or data set it is about."""
    subject = next((wildcards[key] for key in ("run", "anchor", "dataset") if key in wildcards), "")
    return f"{rule} {subject}".strip()


def planned(path: Path) -> dict[str, float]:
    """Return name -> expected seconds of every job in `plan.json`; empty where there is none."""
    try:
        return {name: float(seconds) for name, seconds in json.loads(path.read_text())["seconds"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


class Estimate:
    """Seconds that are left, from what was expected and what jobs took.

    Args:
        expected: name -> seconds.
        cores: how many jobs run side by side.
    """

    def __init__(self, expected: dict[str, float], cores: int) -> None:
        self.expected = expected
        self.cores = cores
        self.taken: dict[str, list[float]] = {}

    def add(self, name: str, seconds: float) -> None:
        """Take note of a job that ended."""
        if seconds >= _FOUND_FINISHED * self.expected.get(name, 0):
            self.taken.setdefault(name, []).append(seconds)

    def of(self, name: str) -> float | None:
        """Return the seconds of one job; None where nothing tells."""
        if name in self.taken:
            return sum(self.taken[name]) / len(self.taken[name])
        if name in self.expected:
            return self.expected[name] * self._correction()
        alike = [s for other, taken in self.taken.items() if other.split()[0] == name.split()[0] for s in taken]
        return sum(alike) / len(alike) if alike else None

    def _correction(self) -> float:
        """How many times as long jobs take as was expected."""
        known = [(sum(taken), len(taken) * self.expected[n]) for n, taken in self.taken.items() if self.expected.get(n)]
        return sum(t for t, _ in known) / sum(e for _, e in known) if known else 1.0

    def left(self, remaining: Iterable[tuple[str, float]]) -> float | None:
        """Return wall seconds for jobs of which a name and the seconds they have been running are given."""
        parts = []
        for name, elapsed in remaining:
            seconds = self.of(name)
            if seconds is None:
                return None
            parts.append(max(seconds - elapsed, 0.05 * seconds))
        return max(sum(parts) / self.cores, max(parts, default=0.0))


class Progress(logging.Handler):
    """Listens to Snakemake's events and tells what is left.

    Args:
        remaining: asked at every job that ends.
        estimate: of seconds.
        say: told one line.
        finished: told the name of every job that ended.
        clock: seconds.
    """

    def __init__(
        self,
        remaining: Remaining,
        estimate: Estimate,
        say: Callable[[str], None],
        finished: Callable[[str], None] = lambda name: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logging.INFO)
        self._remaining, self._estimate, self._say, self._finished, self._clock = (
            remaining,
            estimate,
            say,
            finished,
            clock,
        )
        self._started: dict[int, float] = {}
        self._done: set[int] = set()

    def begin(self, device: str) -> None:
        """Tell what there is to do and, in the sentence `device`, what computes it."""
        self._say(device)
        jobs = list(self._remaining())
        self._say(f"{len(jobs)} jobs to do{self._time_left(jobs)}")

    def emit(self, record: logging.LogRecord) -> None:
        try:
            match getattr(getattr(record, "event", None), "name", ""):
                case "JOB_STARTED":
                    self._started |= dict.fromkeys(record.jobs, self._clock())
                case "JOB_FINISHED":
                    self._end(record.job_id)
        except Exception:  # a study does not fail because of what is said about it
            self.handleError(record)

    def _end(self, number: int) -> None:
        jobs = [(n, name) for n, name in self._remaining() if n not in self._done]
        name = dict(jobs).get(number, "")
        self._done.add(number)
        if number in self._started:
            self._estimate.add(name, self._clock() - self._started[number])
        left = [(n, other) for n, other in jobs if n != number]
        self._say(f"{len(self._done)} of {len(self._done) + len(left)} jobs{self._time_left(left)}")
        self._finished(name)

    def _time_left(self, jobs: list[tuple[int, str]]) -> str:
        now = self._clock()
        seconds = self._estimate.left((name, now - self._started.get(number, now)) for number, name in jobs)
        return f", about {minutes(seconds)} left" if jobs and seconds is not None else ""


def minutes(seconds: float) -> str:
    """Round so that it promises no more than an estimate can."""
    if seconds < 50:
        return f"{10 * max(1, round(seconds / 10))} seconds"
    whole = round(seconds / 60)
    return f"{whole} minute{'s' if whole > 1 else ''}" if whole < 90 else f"{seconds / 3600:.1f} hours"


class Refresh:
    """Renders the report of what has finished when an evaluation ends, one at a time and not more often than given.

    Args:
        results: folder of the results.
        every: seconds between two renderings at least.
    """

    def __init__(self, results: Path, every: float = 600.0) -> None:
        self._command = [sys.executable, "-m", "pygan", "report", str(results)]
        self._every = every
        self._last = -every
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, name: str) -> None:
        due = time.monotonic() - self._last >= self._every
        if not name.startswith("evaluate ") or not due or (self._process and self._process.poll() is None):
            return
        self._last = time.monotonic()
        self._process = subprocess.Popen(
            ["nice", "-n", "19", *self._command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
