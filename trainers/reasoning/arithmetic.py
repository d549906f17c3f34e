"""In which arithmetic and with how many threads a language model is trained."""

from __future__ import annotations

from dataclasses import dataclass

from trainers.run.fastest import with_costs


@dataclass(frozen=True)
class LanguageTraining:
    """How a language model is trained. threads: of torch. us: microseconds a token of each way that was tried."""

    bf16: bool
    threads: int
    us: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        """ "float32, 2 threads"."""
        return f"{'bfloat16' if self.bf16 else 'float32'}, {self.threads} thread{'s' * (self.threads != 1)}"

    def __str__(self) -> str:
        """ "float32, 2 threads, 31 µs a token (float32, 1 thread 44)"."""
        return with_costs(self.name, self.us, "token")
