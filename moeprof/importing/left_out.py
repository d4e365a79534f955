"""What a reader could not take, counted by reason: nothing is dropped without being told."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class LeftOut:
    """Entries or rows that were left out, counted by reason."""

    counts: dict[str, int] = field(default_factory=dict)

    def add(self, reason: str, count: int = 1) -> None:
        """``reason``: what they are and why, such as 'API calls without usable times'."""
        if count:
            self.counts[reason] = self.counts.get(reason, 0) + count

    def phrases(self) -> list[str]:
        """How many and what, a reason each."""
        return [f"{count:,} {reason}" for reason, count in self.counts.items()]

    def notes(self) -> list[str]:
        """One sentence a reason."""
        return [f"left out: {phrase}" for phrase in self.phrases()]
