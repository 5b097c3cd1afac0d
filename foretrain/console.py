"""Console: what people see in a terminal. Results go to stdout and all else to stderr, so `--json` stays clean."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

from foretrain import units
from foretrain.files import finite
from foretrain.run_directory import by_domain

THEME = Theme(
    {
        "label": "dim",
        "figure": "default",
        "strong": "bold",
        "good": "green",
        "bad": "red",
        "note": "yellow",
        "bar.back": "bright_black",
        "bar.complete": "cyan",
        "bar.finished": "cyan",
        "bar.pulse": "cyan",
    }
)
_LINES = 20
_SECONDS = 30.0


class Terminal:
    """Where messages, progress, tables and results go.

    Args:
        quiet: only warnings, errors and results.
        main: False on all ranks but the first, which then say nothing at all.
        out: console of results (stdout).
        err: console of everything else (stderr).
        clock: seconds, rising.
    """

    def __init__(
        self,
        *,
        quiet: bool = False,
        main: bool = True,
        out: Console | None = None,
        err: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.quiet = quiet
        self.main = main
        self.out = out or Console(theme=THEME, highlight=False)
        self.err = err or Console(theme=THEME, highlight=False, stderr=True)
        self.clock = clock

    def say(self, message: str) -> None:
        """One line on what goes on; not in quiet mode. Brackets are text and never markup."""
        if self.main and not self.quiet:
            self.err.print(Text(message), soft_wrap=True)

    def warn(self, message: str) -> None:
        """Something the user should know; shown in quiet mode too."""
        if self.main:
            self.err.print(Text.assemble(("note: ", "note"), message), soft_wrap=True)

    def fail(self, error: BaseException | str) -> None:
        """What went wrong, in one paragraph."""
        if self.main:
            self.err.print(Text.assemble(("error: ", "bold red"), str(error)), soft_wrap=True)

    def show(self, table: Table | Text | str) -> None:
        """A result for people; tables are followed by an empty line."""
        if self.main:
            self.out.print(Text(table) if isinstance(table, str) else table, soft_wrap=isinstance(table, str))
            if isinstance(table, Table):
                self.out.print()

    def json(self, value: Any) -> None:
        """A result for programs: one JSON document and nothing else on stdout; what is not finite becomes null."""
        if self.main:
            text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False, default=str)
            self.out.file.write(text + "\n")
            self.out.file.flush()

    def training(self, total_steps: int, tokens_per_step: int, start: int = 0) -> TrainingProgress:
        """Progress of training from step `start`: a bar in a terminal, plain lines elsewhere."""
        return TrainingProgress(self, total_steps, tokens_per_step, start)

    def counting(self, what: str, unit: str, total: float | None = None) -> CountingProgress:
        """Progress of something that is counted: `what` ("Tokenizing"), `unit` ("tokens"), the total if it is known."""
        return CountingProgress(self, what, unit, total)

    @property
    def shows_progress(self) -> bool:
        """Whether progress is shown at all."""
        return self.main and not self.quiet

    @property
    def live(self) -> bool:
        """Whether stderr is a terminal, in which a line can be redrawn."""
        return self.err.is_terminal and not self.err.is_dumb_terminal


class _Paced:
    """Decides when the next plain line is due: about twenty in all, and one each 30 s while that is not too many."""

    def __init__(self, clock: Callable[[], float], done: float, total: float | None) -> None:
        self.clock, self.total = clock, total
        self.began = self.last = clock()
        self.start = self.done = done

    def due(self, done: float) -> bool:
        now = self.clock()
        far = self.total is not None and done - self.done >= (self.total - self.start) / _LINES
        # After ten minutes a line each 30 s would fill logs: from then on, one each 5 % of the time gone by.
        late = now - self.last >= max(_SECONDS, (now - self.began) / _LINES)
        if far or late or (self.total is not None and done >= self.total and done > self.done):
            self.last, self.done = now, done
            return True
        return False

    def left(self, done: float) -> float | None:
        """Seconds until the total is reached, at the mean pace so far; None before anything is done."""
        if self.total is None or done <= self.start:
            return None
        return (self.clock() - self.began) / (done - self.start) * (self.total - done)


class _Figures(ProgressColumn):
    """The text to the right of a bar, as its task's `figures` field."""

    max_refresh = 0.2

    def render(self, task: Task) -> Text:
        return Text(task.fields.get("figures", ""), style="label", no_wrap=True, overflow="ellipsis")


class _Live:
    """What the two kinds of progress share: opening and closing the bar, and lines above it."""

    def __init__(self, terminal: Terminal) -> None:
        self.terminal = terminal
        self.bar: Progress | None = None

    def note(self, message: str) -> None:
        """A line above the bar."""
        self.terminal.say(message)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


class TrainingProgress(_Live):
    """Progress of training: step, loss, tokens per second, model FLOPs utilisation, time left."""

    def __init__(self, terminal: Terminal, total_steps: int, tokens_per_step: int, start: int) -> None:
        super().__init__(terminal)
        self.total, self.tokens_per_step, self.start = total_steps, tokens_per_step, start
        self.paced = _Paced(terminal.clock, start, total_steps)

    def __enter__(self) -> TrainingProgress:
        self.paced = _Paced(self.terminal.clock, self.start, self.total)
        if self.terminal.shows_progress and self.terminal.live:
            columns = (
                TextColumn("[strong]{task.description}"),
                BarColumn(20),
                TextColumn("{task.fields[steps]}"),
                _Figures(),
            )
            self.bar = Progress(*columns, console=self.terminal.err, refresh_per_second=5, transient=False)
            self.task = self.bar.add_task(
                "Training", total=self.total, completed=self.start, steps=self._steps(self.start), figures=""
            )
            self.bar.start()
        return self

    def step(self, step: int, *, loss: float, tokens_per_second: float | None = None, mfu: float | None = None) -> None:
        """`step` steps are done; the figures are those of the last one."""
        if self.bar is not None:
            self.bar.update(
                self.task,
                completed=step,
                steps=self._steps(step),
                figures=self._figures(step, loss, tokens_per_second, mfu),
            )
        elif self.terminal.shows_progress and self.paced.due(step):
            width = len(f"{self.total:,}")
            figures = self._figures(step, loss, tokens_per_second, mfu)
            self.terminal.say(f"step {step:>{width},}/{self.total:,}  {figures}")

    def move_end(self, total_steps: int) -> None:
        """The run has another number of steps than was said at first."""
        self.total = self.paced.total = total_steps
        if self.bar is not None:
            self.bar.update(self.task, total=total_steps)

    def evaluated(self, step: int, figures: Mapping[str, float]) -> None:
        """Show what an evaluation found: validation losses and the first metric of each task."""
        found = evaluation_line(figures)
        if found:
            self.note(f"step {step:,}  {found}")

    def _steps(self, step: int) -> str:
        return f"{step:,}/{self.total:,}"

    def _figures(self, step: int, loss: float, tokens_per_second: float | None, mfu: float | None) -> str:
        parts = [f"loss {units.measured(loss)}"]
        left = self.paced.left(step)
        if left is not None and step < self.total:
            parts.append(f"{units.duration(left)} left")
        if tokens_per_second is not None:
            parts.append(f"{units.count(tokens_per_second)} tok/s")
        if mfu is not None:
            parts.append(f"MFU {units.share(mfu)}")
        # Last, because the right end is what a narrow terminal cuts off.
        return "  ".join([*parts, units.count(step * self.tokens_per_step, "tokens")])


class CountingProgress(_Live):
    """Progress of something that is counted, such as tokens while a corpus is tokenized."""

    def __init__(self, terminal: Terminal, what: str, unit: str, total: float | None) -> None:
        super().__init__(terminal)
        self.what, self.unit, self.total = what, unit, total
        self.paced = _Paced(terminal.clock, 0, total)

    def __enter__(self) -> CountingProgress:
        if self.terminal.shows_progress and self.terminal.live:
            columns = (SpinnerColumn(style="cyan"), TextColumn("[strong]{task.description}"), BarColumn(20), _Figures())
            shown = columns if self.total is not None else (columns[0], columns[1], columns[3])
            self.bar = Progress(*shown, console=self.terminal.err, refresh_per_second=5, transient=True)
            self.task = self.bar.add_task(self.what, total=self.total, figures="")
            self.bar.start()
        return self

    def update(self, done: float, detail: str = "") -> None:
        """`done` of the total are done; `detail` says on what, such as the name of a domain."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, figures=self._figures(done, detail))
        elif self.terminal.shows_progress and self.paced.due(done):
            self.terminal.say(f"{self.what}: {self._figures(done, detail)}")

    def _figures(self, done: float, detail: str) -> str:
        parts = [units.count(done, self.unit)]
        if self.total is not None:
            parts[0] = f"{units.count(done)} of {units.count(self.total, self.unit)}"
        left = self.paced.left(done)
        if left is not None and self.total is not None and done < self.total:
            parts.append(f"{units.duration(left)} left")
        return "  ".join([*parts, detail] if detail else parts)


def evaluation_line(figures: Mapping[str, float]) -> str:
    """An evaluation in one line: `validation 3.412 (general 3.61, biomedical 3.21)  questions accuracy 0.412`."""
    domains = by_domain(figures)
    parts = []
    if "validation/loss" in figures:
        inside = ", ".join(f"{name} {units.measured(value)}" for name, value in domains.items())
        parts.append(
            f"validation {units.measured(figures['validation/loss'])}" + (f" ({inside})" if len(domains) > 1 else "")
        )
    shown: set[str] = set()
    for name, value in figures.items():
        pieces = name.split("/")
        if pieces[0] == "task" and len(pieces) == 3 and pieces[1] not in shown:
            shown.add(pieces[1])
            parts.append(f"{pieces[1]} {pieces[2].replace('_', ' ')} {units.measured(value)}")
    return "  ".join(parts)
