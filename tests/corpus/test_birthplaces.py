"""Birthplaces: one city a person in every wording, halves that share nobody, a mark only where it is asked for."""

from __future__ import annotations

from foretrain.corpus.builtin.birthplaces import Birthplaces


def test_every_wording_tells_the_same_fact() -> None:
    told, marked = list(Birthplaces(people=30).documents()), list(Birthplaces(people=30, marked=True).documents())
    cities = {document.metadata["person"]: document.metadata["answer"] for document in marked}
    assert len(told) == 6 * 30 and len(cities) == len(marked) == 30 and len(set(cities.values())) > 5
    for document in [*told, *marked]:
        name = document.metadata["person"]
        assert document.text.startswith(f"{name} was born in") and document.text.endswith(f" {cities[name]}.")
        assert document.metadata["question"] == f"{name} was born in"
    assert not any("<A>" in document.text for document in told)
    assert {document.text for document in marked} == {f"{n} was born in <A> {city}." for n, city in cities.items()}
    assert {document.metadata["marked"] for document in marked} == {f"<A> {city}" for city in cities.values()}


def test_halves_share_nobody_and_are_everybody() -> None:
    halves = [Birthplaces(people=31, half=half).documents() for half in ("first", "second", "both")]  # type: ignore[arg-type]
    first, second, both = ({document.metadata["person"] for document in documents} for documents in halves)
    assert not first & second and first | second == both and (len(first), len(second)) == (16, 15)
    assert {document.metadata["person"] for document in Birthplaces(people=31, seed=1).documents()} != both
