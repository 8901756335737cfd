"""Warm-up, stable, decay: driven by elapsed training seconds, so contention cannot move the end."""
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass
class Schedule:
    """Linear warm-up in steps, constant rate, then linear decay to 0 over the last `decay` share.

    Creating the file `trigger` starts the decay at once; it then lasts `decay / (1 - decay)` times
    the time already spent.
    """
    minutes: float
    decay: float = 0.25
    warmup_steps: int = 40
    trigger: Path | None = None
    decay_start: float = -1.0
    decay_end: float = -1.0

    def factor(self, step: int, elapsed: float) -> float:
        """Learning-rate factor; 0 or less means that training is over."""
        if self.decay_start < 0:
            total = self.minutes * 60
            forced = self.trigger is not None and self.trigger.exists()
            if forced or elapsed >= total * (1 - self.decay):
                self.decay_start = elapsed
                span = elapsed * self.decay / (1 - self.decay) if forced else total - elapsed
                self.decay_end = elapsed + max(span, 1.0)
        warm = min(1.0, (step + 1) / self.warmup_steps)
        if self.decay_start < 0:
            return warm
        left = (self.decay_end - elapsed) / (self.decay_end - self.decay_start)
        return min(warm, left)

    @property
    def decaying(self) -> bool:
        """Whether the decay phase has begun."""
        return self.decay_start >= 0
