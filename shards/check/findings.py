"""What the verification of one shard found."""

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
    index_only: bool = False  # the tar matches dataset.json, its index does not match the tar

    def note(self, reason: str, key: str = "", member: str = "") -> None:
        """Record a fault; with a ``key`` the sample cannot be kept."""
        self.broken.append({"shard": self.name, "key": key, "member": member, "reason": reason})
        if key:
            self.damaged.add(key)
