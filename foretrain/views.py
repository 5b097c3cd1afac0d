"""Views: what the commands of `foretrain` show people, made from the plain data that `--json` shows programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from foretrain import overheads, tables, units
from foretrain.reference import show_default

View = Sequence[Table | Text | str]


def result(done: Mapping[str, Any]) -> View:
    """The end of `foretrain run`: final figures with their intervals, and what the run cost."""
    found = done["result"]
    if found is None:
        return []
    figures = {"loss": found["loss"], **{f"validation/{name}": value for name, value in found["validation"].items()}}
    for task, metrics in found["tasks"].items():
        for metric, measured in metrics.items():
            name = f"task/{task}/{metric}"
            figures |= {name: measured["value"], f"{name}/low": measured["low"], f"{name}/high": measured["high"]}
    return [tables.result_table(found["name"], figures, found["cost"])]


_SHAPE = ("type", "layers", "width", "context")


def plan(plan: Mapping[str, Any]) -> View:
    """`foretrain check`: the model, the data by domain, what a step and the run cost."""
    model, inner = plan["model"], units.count(plan["parameters_without_embeddings"])
    facts = {
        "model": f"{model['type']}, {model['layers']} layers, width {model['width']}, context {model['context']}",
        "parameters": f"{units.count(plan['parameters'])} ({inner} without embeddings)",
        **_trained(plan),
        **{name: f"{value:,}" for name, value in model.items() if name not in _SHAPE},  # what its modality adds
        "precision": plan["precision"],
        "step": f"{plan['tokens_per_step']:,} tokens, {units.flops(plan['flops_per_step'])}",
        "run": _run_length(plan),
        "memory": f"about {units.size(plan['memory_estimate'])}",
    }
    domains = [
        {
            "domain": name,
            "weight": units.share(plan["weights"][name]),
            **{split: _tokens(found) for split, found in splits.items()},
        }
        for name, splits in plan["domains"].items()
    ]
    rows = [{"what": name, "value": value} for name, value in facts.items()]
    notes = [Text.assemble(("note: ", "note"), note) for note in plan["notes"]]
    return [tables.table(rows, {"what": "", "value": plan["name"]}), tables.table(domains), *notes]


def _trained(plan: Mapping[str, Any]) -> dict[str, str]:
    trained = plan.get("parameters_trained", plan["parameters"])
    return {} if trained == plan["parameters"] else {"trained": f"{units.count(trained)} parameters"}


def _tokens(found: Mapping[str, Any]) -> str:
    limit = f"{units.count(found['unique'])} of " if "unique" in found else ""
    text = f"{limit}{units.count(found['tokens'], 'tokens')} in {units.count(found['documents'], 'documents')}"
    if (whole := found.get("kept_of")) is not None:
        text += f", kept of {units.count(whole['tokens'])} in {units.count(whole['documents'])}"
    return text


def _run_length(plan: Mapping[str, Any]) -> str:
    if plan["total_steps"] is None:
        return "as many steps as fit; measured by a few steps when it starts"
    parts = [f"{plan['total_steps']:,} steps", units.count(plan["tokens"], "tokens"), units.flops(plan["flops"])]
    if plan.get("seconds_estimate") is not None:
        parts.append(f"about {units.duration(plan['seconds_estimate'])}")
    return ", ".join(parts)


def parts(parts: Sequence[Mapping[str, Any]]) -> View:
    """`foretrain parts`: one line a part, or everything about the only one."""
    if len(parts) == 1:
        return _part(parts[0])
    if len({part["axis"] for part in parts}) == 1:
        return _axis(parts)
    rows = [
        {"axis": part["axis"], "kind": Text(part["kind"], style="strong"), "what it is": part["summary"]}
        for part in parts
    ]
    return [tables.table(rows, caption="foretrain parts KIND shows one with its fields")]


def _axis(parts: Sequence[Mapping[str, Any]]) -> View:
    """The parts of one axis: what each answers, where it comes from, and what it was measured to cost."""
    costed = any(part["measured"] for part in parts)
    rows = []
    for part in parts:
        facts = part["facts"]
        paper = f"arXiv:{facts['arxiv']}" if facts["arxiv"] else facts["paper"]
        row = {
            "kind": Text(part["kind"], style="strong"),
            "what it answers": facts["answers"] or part["summary"],
            "paper": f"{paper} ({facts['year']})" if paper and facts["year"] else paper,
        }
        told = part["measured"]
        rows.append({**row, "a step": f"x {told['processor']:.2f}" if told else ""} if costed else row)
    note = "foretrain parts KIND shows one with its fields"
    note += f"; a step: processor time against a plain one, {overheads.circumstances()}" if costed else ""
    return [tables.table(rows, caption=note)]


def _part(part: Mapping[str, Any]) -> View:
    facts = part["facts"]
    fields = [
        {
            "field": Text(field["name"], style="strong"),
            "type": field["type"],
            "default": Text("required", style="label") if field["required"] else show_default(field["default"]),
            "what it is": field["doc"],
        }
        for field in part["fields"]
    ]
    paper = f"{facts['paper']} ({facts['year']})" if facts["paper"] and facts["year"] else facts["paper"]
    known = {
        "answers": facts["answers"],
        "paper": " ".join(text for text in (paper, f"arXiv:{facts['arxiv']}" if facts["arxiv"] else "") if text),
        "needs": ", ".join(facts["needs"]),
        "costs": facts["overhead"],
        "measured": overheads.measured_words(part["axis"], part["kind"]),
        "status": facts["status"],
    }
    lines = [f"{name}: {value}" for name, value in known.items() if value]
    title = Text.assemble((f"{part['axis']} ", "label"), (part["kind"], "strong"))
    return [title, "", part["doc"], "", *lines, *([tables.table(fields)] if fields else ["", "No settings."])]


def runs(rows: Sequence[Mapping[str, Any]]) -> View:
    """`foretrain ls`."""
    return [tables.runs_table(rows)] if rows else ["There are no runs here."]


def comparison(compared: Mapping[str, Any]) -> View:
    """`foretrain compare`."""
    notes = [Text.assemble(("note: ", "note"), note) for note in compared["notes"]]
    return [*tables.comparison_tables(compared), *notes]


def samples(texts: Sequence[Mapping[str, str]]) -> View:
    """`foretrain sample`: each prompt, dimmed, with what the model wrote after it."""
    shown: list[Text | str] = []
    for number, sample in enumerate(texts):
        shown += [""] if number else []
        shown.append(Text.assemble((sample["prompt"], "label"), sample["text"]))
    return shown


def measures(tasks: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> View:
    """`foretrain evaluate`: every metric of every task with its interval."""
    rows = [
        {
            "task": name,
            "metric": metric.replace("_", " "),
            "value": measured["value"],
            "95 % interval": f"{units.measured(measured['low'])} to {units.measured(measured['high'])}",
            "items": measured["items"],
        }
        for name, metrics in tasks.items()
        for metric, measured in metrics.items()
    ]
    return [tables.table(rows)]


def finetuned(tasks: Mapping[str, Mapping[str, Any]]) -> View:
    """`foretrain finetune`: the metrics of each task, which rate was chosen, and what the others came to."""
    shown: list[Table | Text | str] = [*measures({name: found["metrics"] for name, found in tasks.items()})]
    for name, found in tasks.items():
        spread = found["metrics"]["spread"]["value"]
        rows = [
            {
                "rate": f"{row['rate']:g}" + (" (chosen)" if row["rate"] == found["rate"] else ""),
                "accuracy, items that choose": row["chosen"],
                "accuracy, items that judge": row["accuracy"],
            }
            for row in found["grid"]
        ]
        told = f"they differ by {spread:.3f} in accuracy"
        text = f"{name}: of {len(rows)} learning rates {found['rate']:g} was chosen; {told}"
        shown += ["", text, tables.table(rows)]
    return shown


def flips(found: Mapping[str, Any]) -> View:
    """`foretrain flips`: both models on every task, and how many items flipped."""

    def told(measured: Mapping[str, Any]) -> str:
        value = units.measured(measured["value"])
        known = measured["low"] is not None
        return f"{value} ({units.measured(measured['low'])} to {units.measured(measured['high'])})" if known else value

    rows = [
        {
            "task": f"{name}, {task['metric'].replace('_', ' ')}",
            "items": task["items"],
            "old": task["old"],
            "new": task["new"],
            "negative flips": told(task["negative_flips"]),
            "positive flips": told(task["positive_flips"]),
            "change": told(task["change"]),
        }
        for name, task in found["tasks"].items()
    ]
    page = [] if found["page"] is None else [str(found["page"])]
    return [tables.table(rows, caption="shares of items, with 95 % intervals over items"), *page]


def batches(rows: Sequence[Mapping[str, Any]]) -> View:
    """`foretrain data show`: where each row comes from, and its text."""
    shown: list[Text | str] = []
    for row in rows:
        sources = ", ".join(row["documents"])
        head = f"step {row['step']}  position {row['position']}  {row['domain']}"
        head += f"  {row['loss_tokens']} of {row['tokens']} tokens with loss"
        shown += [Text(head, style="strong"), Text(sources, style="label"), row["text"], ""]
    return shown


def path(made: Mapping[str, str]) -> View:
    """A file or folder that was written."""
    return [made["path"]]


def corpus(built: Mapping[str, Any]) -> View:
    """`foretrain corpus build`: what each stage left, and where the corpus and its card are."""
    manifest, rows = built["manifest"], []
    for each in manifest["stages"]:
        most = next(iter(each["dropped"].items()), None)
        rows.append(
            {
                "stage": each["kind"],
                "documents": each["documents"],
                "left": each["kept"],
                "text left": units.size(each["kept_bytes"]),
                "dropped most for": "" if most is None else f"{most[0]} ({most[1]:,})",
            }
        )
    return [tables.table(rows, title=manifest["name"]), f"{built['path']}/card.html"]


def forecast(entry: Mapping[str, Any]) -> View:
    """`foretrain forecast`: what is predicted, in words, and the constants of the law."""
    constants = [{"constant": name, "value": value} for name, value in entry["constants"].items()]
    return [Text(entry["words"]), *([tables.table(constants)] if constants else [])]


def ledger(found: Mapping[str, Any]) -> View:
    """`foretrain forecast --ledger`: every forecast beside what came, and how good each law was."""
    if not found["forecasts"]:
        return ["There are no forecasts here."]
    rows = [
        {
            "run": Text(entry["run"], style="strong"),
            "law": entry["law"]["kind"],
            "predicted": entry["value"],
            "90 %": f"{units.measured(entry['low'])} to {units.measured(entry['high'])}",
            **_came(entry),
        }
        for entry in found["forecasts"]
    ]
    laws = [
        {
            "law": kind,
            "scored": told["scored"],
            "mean error": units.share(told["error"]),
            "held": units.share(told["covered"]),
        }
        for kind, told in found["laws"].items()
    ]
    return [tables.table(rows), *([tables.table(laws)] if laws else [])]


def _came(entry: Mapping[str, Any]) -> dict[str, Any]:
    score = entry["score"]
    if score is None:
        return {"measured": "what if" if entry["what_if"] else None, "error": None, "held": None}
    held = "yes" if score["covered"] else "no"
    return {"measured": score["measured"], "error": units.share(score["error"]), "held": held}


def merge(made: Mapping[str, Any]) -> View:
    """`foretrain merge`: the formula, what went in, what was found, and where it lies."""
    inputs = [{"model": each["name"], "hash": each["hash"], "path": each["path"]} for each in made["inputs"]]
    figures = [{"figure": name, "value": units.measured(value)} for name, value in made["figures"].items()]
    return [made["formula"], tables.table(inputs), *([tables.table(figures)] if figures else []), made["path"]]
