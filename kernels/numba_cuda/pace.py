"""How much a launch takes on: as much as the device does in a fraction of a second.

Where it sits: training.py counts chunks of rows, prediction.py counts rows.  The first launch assumes a slow device,
the next ones go by what was measured.  Results do not depend on it.
"""

from __future__ import annotations

from fastmlp.kernels.numba_cuda import settings


class Pace:
    """Units of work per launch.

    Parameters
    ----------
    first_seconds : float
        What one unit is assumed to take at first.
    """

    def __init__(self, first_seconds: float) -> None:
        self._seconds, self._most = first_seconds, 0

    def units(self, limit: int) -> int:
        """Return how many units, from 1 to ``limit``, the next launch should take on."""
        wanted = settings.LAUNCH_SECONDS / max(self._seconds, 1e-12)
        if self._most:
            wanted = min(wanted, settings.GROWTH * self._most)
        return max(1, int(min(wanted, limit)))

    def measured(self, units: int, seconds: float) -> None:
        """Note how long a launch of so many units took."""
        self._seconds, self._most = seconds / units, units
