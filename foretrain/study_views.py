"""Study views: what `foretrain study` and `foretrain claims` show people, made from the plain data of `--json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from foretrain import tables, units
from foretrain.reports import study_words
from foretrain.views import View

_VERDICT_STYLES = {
    "better": "good",
    "worse": "bad",
    "no difference": "label",
    "undecided": "note",
}


def study(plain: Mapping[str, Any]) -> View:
    """`foretrain study`: the verdict of every comparison by metric, then what each arm cost, then the notes."""
    shown: list[Table | Text | str] = []
    names = [*study_words.judged(plain), *(name for name in plain["metrics"] if not plain["metrics"][name]["judged"])]
    for name in names:
        title = study_words.metric_title(name, plain["metrics"][name])
        second = [row for row in plain["second"] if row["metric"] == name]
        rows = [_comparison(row, plain["baseline"]) for row in [*study_words.rows_of(plain, name), *second]]
        # One arm alone is compared with nothing.
        made = tables.table(rows or [_alone(plain, name)], title=title)
        shown.append(_tight(made, "95 % interval"))
    costs = [{"arm": Text(arm, style="strong"), "a run cost": _arm_cost(found)} for arm, found in plain["arms"].items()]
    made = _tight(tables.table(costs))
    # It begins with a number, but is text.
    made.columns[-1].justify = "left"
    shown.append(made)
    for arm, found in plain["arms"].items():
        for trial in found["trials"]:
            if trial["status"] == "failed":
                told = f"{arm}, seed {trial['seed']}: {trial['error'] or 'it left no message'}"
                shown.append(Text.assemble(("failed: ", "bad"), told))
    return [*shown, *(Text.assemble(("note: ", "note"), note) for note in plain["notes"])]


def _comparison(row: Mapping[str, Any], baseline: str) -> dict[str, Any]:
    """One comparison as a row."""
    style = _VERDICT_STYLES.get(row["verdict"] or "", "label")
    return {
        "arm": Text(study_words.pair_words(row, baseline), style="strong"),
        "difference": Text(study_words.difference(row)),
        "95 % interval": Text(study_words.interval(row) or units.MISSING, style="label"),
        "noise": Text(study_words.noise_units(row) or units.MISSING),
        "seeds": len(row["seeds"]),
        "verdict": Text(study_words.verdict_words(row), style=style),
    }


def _tight(table: Table, *unbroken: str, widest: int = 20) -> Table:
    """A table for narrow terminals: columns of these headings keep their lines, the first one words of that length."""
    table.padding = (0, 2, 0, 0)
    for column in table.columns:
        column.no_wrap = str(column.header) in unbroken
    first = table.columns[0]
    words = [word for text in first.cells for word in str(text).split()]
    first.min_width = min(max(map(len, words), default=0), widest)
    return table


def _alone(plain: Mapping[str, Any], name: str) -> dict[str, Any]:
    arm = plain["baseline"]
    found = plain["arms"][arm]["metrics"][name]
    return {"arm": Text(arm, style="strong"), "mean": found["mean"], "sd": found["sd"], "seeds": found["seeds"]}


def _arm_cost(found: Mapping[str, Any]) -> Text:
    """What a run of an arm cost, and what was paid once; whether it was stopped, and trials that failed."""
    text = Text(tables.cost_line(found))
    for key, words in (("one_off_flops", "one-off"), ("tuning_flops", "tuning")):
        if found[key]:
            text.append(f"; {words} {units.flops(found[key])}")
    if found["stopped"]:
        text.append(f"; stopped at {100 * found['stopped']:.0f} %", style="note")
    if found["failed"]:
        text.append(f"; {found['failed']} of {len(found['trials'])} trials failed", style="bad")
    return text


def noise(plain: Mapping[str, Any]) -> View:
    """`foretrain study --noise`: the seed noise of every metric, and how often equal groups of seeds are told apart."""
    rows = []
    for name, found in plain["metrics"].items():
        bounds = (found["low"], found["high"])
        rate = found["false_positives"]
        rows.append(
            {
                "metric": Text(study_words.metric_words(name), style="strong"),
                "seed noise (sd)": found["sd"],
                "95 % interval": None if None in bounds else Text(" to ".join(map(study_words.compact, bounds))),
                "seeds": found["seeds"],
                "called different": None if rate is None else Text(units.share(rate["rate"])),
            }
        )
    caption = "called different: verdicts better or worse between groups of these seeds, which are all of one recipe"
    return [tables.table(rows, title=plain["name"], caption=caption)]


def claims(rows: Sequence[Mapping[str, Any]]) -> View:
    """`foretrain claims`: one line a claim, with its last verdict; dimmed where it was not run."""
    from foretrain.claims.listing import listing

    return _narrow(listing(rows))


def claim(plain: Mapping[str, Any]) -> View:
    """One claim: its paper, what was published, and its last verdict with the figures it rests on."""
    from foretrain.claims.listing import shown

    return _narrow(shown(plain))


def claim_run(result: Mapping[str, Any]) -> View:
    """`foretrain claims run`: what was expected beside what was found."""
    from foretrain.claims.listing import outcomes

    return _narrow(outcomes(result))


def _narrow(pieces: View) -> View:
    return [_tight(piece, "95 % interval", widest=12) if isinstance(piece, Table) else piece for piece in pieces]


def train_once(plain: Mapping[str, Any]) -> View:
    """`foretrain study` of interventions in one run: whether they disturb each other, and the verdict of each."""
    shown: list[Table | Text | str] = []
    names, check, full = plain["interventions"], plain["check"], plain["full"]
    if check is not None:
        rows = [
            {"acting": Text(acting, style="strong"), **{read: _cell(check["matrix"][acting][read]) for read in names}}
            for acting in names
        ]
        rows.append({"acting": Text("all", style="strong"), **{read: _cell(check["joint"][read]) for read in names}})
        if check["control"] is not None:
            cells = check["control"]["cells"]
            rows.append({"acting": Text("control", style="strong"), **{read: _cell(cells[read]) for read in names}})
        shown.append(tables.table(rows, title="Effect on the metric of each intervention, in seed noise"))
        shown += [Text(words) for words in check["words"]]
    if full is not None:
        verdicts = [
            {"intervention": Text(name, style="strong"), "verdict": _cell(cell), "words": cell["words"]}
            for name, cell in [*full["verdicts"].items(), ("validation loss", full["validation"])]
        ]
        shown.append(tables.table(verdicts, title="All in one run, against none"))
    if plain["solo"] is not None:
        alone = [
            {"intervention": Text(name, style="strong"), "agrees": str(cell["agrees"]), "words": cell["words"]}
            for name, cell in plain["solo"].items()
        ]
        shown.append(tables.table(alone, title="In the joint run, against a run of its own"))
    if plain["stopped"]:
        shown.append(Text("The full runs were left out: interventions that disturb each other cannot share a run."))
    saved = plain["cost"]["saved"]
    cost = f"cost: {units.flops(plain['cost']['flops'])}"
    return [*shown, cost if saved is None else f"{cost}, {100 * saved:.0f} % less than a run for each"]


def _cell(cell: Mapping[str, Any]) -> Text:
    """A verdict in one word, with its size in seed noise where that is known."""
    size = "" if cell["in_noise"] is None else f" {cell['in_noise']:.1f}"
    return Text(f"{cell['verdict']}{size}", style=_VERDICT_STYLES.get(cell["verdict"], "label"))
