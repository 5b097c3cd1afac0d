"""What the console prints, in a terminal and elsewhere, by rich's recording console."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from foretrain.console import THEME, Terminal, evaluation_line
from foretrain.tables import comparison_tables, cost_line, result_table, runs_table, table


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def plain(clock: Clock, **settings: bool) -> tuple[Terminal, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    consoles = {"out": Console(file=out, theme=THEME, width=100), "err": Console(file=err, theme=THEME, width=100)}
    return Terminal(clock=clock, **consoles, **settings), out, err


def shown(made: Table, width: int = 100) -> str:
    console = Console(file=io.StringIO(), record=True, width=width, theme=THEME)
    console.print(made)
    return console.export_text()


def test_messages_go_to_stderr_and_results_to_stdout(clock: Clock) -> None:
    terminal, out, err = plain(clock)
    terminal.say("reading [bold]notes[/bold]")
    terminal.warn("odd")
    terminal.fail(ValueError("broken"))
    terminal.show("a result")
    terminal.json({"x": [1, math.nan], "path": Path("a")})
    assert err.getvalue() == "reading [bold]notes[/bold]\nnote: odd\nerror: broken\n"
    first, _, rest = out.getvalue().partition("\n")
    assert first == "a result" and json.loads(rest) == {"x": [1, None], "path": "a"}


def test_quiet_keeps_warnings_and_results(clock: Clock) -> None:
    terminal, out, err = plain(clock, quiet=True)
    terminal.say("no")
    terminal.warn("yes")
    with terminal.training(10, 8) as progress:
        progress.step(10, loss=1.0)
        progress.evaluated(10, {"validation/loss": 1.0})
    with terminal.counting("Tokenizing", "tokens", 10) as counting:
        counting.update(10)
    terminal.show("result")
    assert (out.getvalue(), err.getvalue()) == ("result\n", "note: yes\n")


def test_other_ranks_say_nothing(clock: Clock) -> None:
    terminal, out, err = plain(clock, main=False)
    for speak in (terminal.say, terminal.warn, terminal.fail, terminal.show, terminal.json):
        speak("x")
    with terminal.training(10, 8) as progress:
        progress.step(10, loss=1.0)
    assert out.getvalue() + err.getvalue() == ""


def test_training_prints_a_line_each_twentieth_elsewhere(clock: Clock) -> None:
    terminal, _, err = plain(clock)
    with terminal.training(1000, 4096) as progress:
        for step in range(1, 1001):
            clock.now += 0.1
            progress.step(step, loss=8 / step, tokens_per_second=34_210.0, mfu=0.372)
    lines = err.getvalue().splitlines()
    assert [int(line.split("/")[0].split()[1].replace(",", "")) for line in lines] == list(range(50, 1001, 50))
    assert lines[0] == "step    50/1,000  loss 0.1600  1 min 35 s left  34.2K tok/s  MFU 37.2 %  205K tokens"
    assert "left" not in lines[-1]


def test_slow_steps_print_a_line_each_30_seconds_at_first_and_fewer_later(clock: Clock) -> None:
    terminal, _, err = plain(clock)
    with terminal.training(1_000_000, 4096) as progress:
        for step in range(1, 60):
            clock.now += 10
            progress.step(step, loss=1.0)
        early = len(err.getvalue().splitlines())
        for step in range(60, 8640):
            clock.now += 10
            progress.step(step, loss=1.0)
    assert early == 19
    assert early + 20 < len(err.getvalue().splitlines()) < 160


def test_a_resumed_run_counts_from_where_it_starts(clock: Clock) -> None:
    terminal, _, err = plain(clock)
    with terminal.training(100, 8, start=90) as progress:
        clock.now += 10
        progress.step(95, loss=1.0)
    assert "10 s left" in err.getvalue(), "five steps took ten seconds, and five are left"


def test_the_bar_in_a_terminal(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=110, theme=THEME, record=True, _environ={})
    terminal = Terminal(err=console, clock=clock)
    with terminal.training(1200, 8192) as progress:
        clock.now += 60
        progress.step(300, loss=4.2123, tokens_per_second=34_210.0, mfu=0.372)
        progress.evaluated(300, {"validation/loss": 4.3})
        assert progress.bar is not None
        progress.bar.refresh()
    text = console.export_text()
    assert "300/1,200 loss 4.212  3 min left  34.2K tok/s  MFU 37.2 %  2.46M tokens" in text
    assert "step 300  validation 4.300" in text
    assert progress.bar is None


def test_the_bar_is_closed_when_training_fails(clock: Clock) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, theme=THEME)
    progress = Terminal(err=console, clock=clock).training(10, 8)
    with pytest.raises(RuntimeError), progress:
        raise RuntimeError
    assert progress.bar is None


def test_counting(clock: Clock) -> None:
    terminal, _, err = plain(clock)
    with terminal.counting("Tokenizing", "tokens") as progress:
        for done in range(1, 100):
            clock.now += 1
            progress.update(done * 100_000, "prose")
    assert err.getvalue().splitlines() == [f"Tokenizing: {n}M tokens  prose" for n in ("3", "6", "9")]
    terminal, _, err = plain(clock)
    with terminal.counting("Tokenizing", "tokens", 200) as progress:
        clock.now += 5
        progress.update(100)
    assert err.getvalue() == "Tokenizing: 100 of 200 tokens  5.0 s left\n"


def test_evaluations_in_one_line() -> None:
    figures = {
        "validation/general/loss": 3.61,
        "validation/general/bits_per_byte": 1.3,
        "validation/biomedical/loss": 3.21,
        "validation/loss": 3.412,
        "task/questions/exact_match": 0.412,
        "task/questions/exact_match/low": 0.38,
        "task/questions/f1": 0.5,
    }
    expected = "validation 3.412 (general 3.610, biomedical 3.210)  questions exact match 0.4120"
    assert evaluation_line(figures) == expected
    assert evaluation_line({"validation/x/loss": 1.0, "validation/loss": 1.0}) == "validation 1.000"
    assert evaluation_line({"probe/x": 1.0}) == ""


def test_tables_align_numbers_and_never_read_markup() -> None:
    text = shown(table([{"name": "[red]a[/red]", "n": 1234}, {"name": "b", "n": None}], {"name": "name", "n": "count"}))
    assert [line.rstrip() for line in text.splitlines()[2:]] == ["[red]a[/red]    1,234", "b                   –"]


def test_the_result_table() -> None:
    figures = {
        "step": 3,
        "lr": 0.1,
        "loss": 3.31234,
        "validation/prose/loss": 3.4,
        "validation/loss": 3.2,
        "task/q/accuracy": 0.4,
        "task/q/accuracy/low": 0.3,
        "task/q/accuracy/high": 0.5,
    }
    cost = {"steps": 1200, "tokens": 9.8e6, "flops": 2.4e14, "seconds": 288.0, "peak_memory": None}
    lines = shown(result_table("demo", figures, cost)).splitlines()
    names = [line.split("  ")[0] for line in lines[3:-1]]
    assert names == ["training loss", "validation loss", "validation · prose · loss", "task · q · accuracy"]
    assert "0.3000 to 0.5000" in lines[-2]
    assert lines[-1].strip() == "1,200 steps, 9.8M tokens, 2.4e14 FLOPs, 4 min 48 s"
    assert cost_line({}) == ""


def test_listings_and_comparisons() -> None:
    rows = [
        {"name": "a", "status": "running", "step": 420, "total_steps": 1200, "loss": 4.2, "validation/loss": None},
        {"name": "b", "status": "done", "step": 1200, "total_steps": 1200, "parameters": 4.1e6, "seconds": 3.0},
    ]
    text = shown(runs_table(rows))
    assert "420/1,200" in text and "4.1M" in text and "1,200  " in text
    compared = {
        "runs": [{"name": "a"}, {"name": "b"}],
        "metrics": [
            {"name": "validation/loss", "values": [3.2, 3.1], "low": [None, 3.0], "high": [None, 3.2], "best": 1}
        ],
        "cost": [{"name": "seconds", "values": [30, None]}],
        "recipe": [{"key": "optimizer.lr", "values": [0.001, 0.002]}],
    }
    figures, cost, settings = (shown(made) for made in comparison_tables(compared))
    assert "3.100  3.000 to 3.200" in figures and "30 s" in cost
    assert settings.splitlines()[-1].split() == ["optimizer.lr", "0.001", "0.002"]
