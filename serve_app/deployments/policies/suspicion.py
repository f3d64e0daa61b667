"""Which requests may have ended a replica, and when one is convicted."""

from dataclasses import dataclass

CONVICTING_DEATHS = 2
"""So many deaths of which it was the only suspect, with no resume point passed between them, convict a request."""


@dataclass
class Suspicion:
    """What one request is suspected of.

    After a death, every request that was in flight in that replica is suspect. Each goes on as the only suspect of a
    replica, until it tells a resume point or ends; nothing new joins it meanwhile. If that replica dies as well, it
    must be alone in its next one. If it dies there again, it is poison. So nobody is convicted next to others.
    """

    is_suspect: bool = False
    deaths: int = 0

    @property
    def is_convicted(self) -> bool:
        """Whether no replica should draw it any more."""
        return self.deaths >= CONVICTING_DEATHS

    @property
    def must_be_alone(self) -> bool:
        """Whether nothing else may run where it runs."""
        return self.deaths > 0

    def note_death(self, was_only_suspect: bool) -> None:
        """The replica that ran it has died, or had to be killed."""
        self.is_suspect = True
        self.deaths += was_only_suspect

    def note_progress(self) -> None:
        """It has told a resume point: whatever ended the last replica is behind it."""
        self.is_suspect = False
        self.deaths = 0
