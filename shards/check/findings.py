"""What the proof of one shard found."""

from __future__ import annotations

from dataclasses import dataclass, field

Broken = dict[str, str]


@dataclass
class Findings:
    """Faults of one shard, and what follows for a repair."""

    name: str
    samples: int = 0
    keys: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    damaged: set[str] = field(default_factory=set)  # keys that cannot be kept
    index_only: bool = False  # the tar is what dataset.json says, its index is not

    def note(self, reason: str, key: str = "", member: str = "") -> None:
        """Name a fault."""
        self.broken.append({"shard": self.name, "key": key, "member": member, "reason": reason})
        if key:
            self.damaged.add(key)
