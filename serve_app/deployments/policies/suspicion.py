"""Which requests may have ended a replica, and when one is convicted."""

from dataclasses import dataclass

DEATHS_ALONE = 2
"""So many deaths alone, with no resume point passed between them, convict a request."""


@dataclass
class Suspicion:
    """What one request is suspected of.

    After a death, every request that was in flight in that replica is suspect, and runs alone in its next one until it
    tells a resume point or ends. One that dies alone again and again without getting any further is poison.
    """

    is_suspect: bool = False
    deaths_alone: int = 0

    @property
    def is_convicted(self) -> bool:
        """Whether no replica should draw it any more."""
        return self.deaths_alone >= DEATHS_ALONE

    def note_death(self, was_alone: bool) -> None:
        """The replica that ran it has died, or had to be killed."""
        self.is_suspect = True
        self.deaths_alone += was_alone

    def note_progress(self) -> None:
        """It has told a resume point: whatever ended the last replica is behind it."""
        self.is_suspect = False
        self.deaths_alone = 0
