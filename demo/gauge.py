"""A fleet's counts as figures that move: so many a second, twice a second."""

from __future__ import annotations

import statistics
import time
from collections import deque

from .tally import Tally

TICK = 0.5
"""Seconds between two samples."""
SAMPLES = 120

Sample = tuple[float, float, float, float, "float | None", "float | None"]
"""Rows right and wrong, requests answered and failed, each a second; the median and
the 95th percentile of the latency in milliseconds, None where nothing was answered."""


class Gauge:
    """Samples of what a tally counts, and the spans of time in which it was wrong."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._at = time.monotonic()
        self._counts = self._count()
        self._faulty = 0
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.faults: deque[list[float]] = deque(maxlen=1000)
        """From when to when, in seconds since the tally began."""

    def take(self) -> Sample:
        """Take a sample of what has been counted since the last one."""
        now = time.monotonic()
        elapsed = max(now - self._at, 0.001)
        counts = self._count()
        rates = [
            round((new - old) / elapsed, 1)
            for new, old in zip(counts, self._counts, strict=True)
        ]
        self._at, self._counts = now, counts
        self._note_faults(elapsed)
        sample = (rates[0], rates[1], rates[2], rates[3], *self._latency())
        self.samples.append(sample)
        return sample

    def _count(self) -> tuple[int, int, int, int]:
        tally = self._tally
        return (
            tally.rows - tally.wrong,
            tally.wrong,
            tally.requests - tally.failures,
            tally.failures,
        )

    def _latency(self) -> tuple[float | None, float | None]:
        seconds = sorted(self._tally.latencies)
        self._tally.latencies.clear()
        if not seconds:
            return None, None
        high = seconds[int(len(seconds) * 0.95)]
        return round(statistics.median(seconds) * 1000, 1), round(high * 1000, 1)

    def _note_faults(self, elapsed: float) -> None:
        """Make the last span longer, or begin one, if anything was wrong."""
        now, faulty = self._tally.seconds, self._tally.wrong + self._tally.undecoded
        if faulty > self._faulty:
            if self.faults and now - self.faults[-1][1] < 3 * TICK:
                self.faults[-1][1] = round(now, 2)
            else:
                self.faults.append([round(now - elapsed, 2), round(now, 2)])
        self._faulty = faulty
