"""Where a stage's code is, for formats that point at a file: values that a caller fills."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Places:
    """Paths from the root of the repository, with '/'. solution: of its file, '' if unknown."""

    solution: str = ""
    stages: Mapping[str, str] = field(default_factory=dict)

    def of(self, stage: str) -> str:
        """The file of a stage, else of the solution; '' if neither is known."""
        return self.stages.get(stage, self.solution)


NOWHERE = Places()
