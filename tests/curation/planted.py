"""Documents of which it is known which are nearly the same: originals, edited copies, and others of their subject."""

from __future__ import annotations

import random

SUBJECTS = 12
_SHARED = 120


def vocabulary(prefix: str, size: int, dice: random.Random) -> list[str]:
    """Made-up words that begin alike."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [prefix + "".join(dice.choice(letters) for _ in range(dice.randint(2, 6))) for _ in range(size)]


def documents(
    originals: int, copies: int, edits: tuple[float, float], seed: int, words: tuple[int, int] = (80, 240)
) -> list[tuple[str, int]]:
    """Texts with the number of the original that each is a copy of.

    Originals of one subject share a small vocabulary (of Zipf's law) and whole stock phrases, as pages of one site do;
    a copy has a share of its words, between `edits`, replaced by others of its subject, dropped or doubled.
    """
    dice = random.Random(seed)
    common = vocabulary("", 60, dice)
    subjects = [vocabulary("", _SHARED, dice) for _ in range(SUBJECTS)]
    stock = [[_sentence(subject, common, 9, dice) for _ in range(6)] for subject in subjects]
    found = []
    for number in range(originals):
        place = number % SUBJECTS
        text = _sentence(subjects[place], common, dice.randint(*words), dice)
        for phrase in dice.sample(stock[place], 2):  # the same words in the same order, as in many others
            at = dice.randrange(len(text))
            text[at:at] = phrase
        found.append((" ".join(text), number))
        for _ in range(copies if number % 2 else 0):
            found.append((" ".join(_edited(text, subjects[place], dice.uniform(*edits), dice)), number))
    dice.shuffle(found)
    return found


def _sentence(subject: list[str], common: list[str], length: int, dice: random.Random) -> list[str]:
    def word() -> str:
        if dice.random() < 0.4:
            return common[min(int(dice.paretovariate(0.8)) - 1, len(common) - 1)]
        return subject[min(int(dice.paretovariate(0.6)) - 1, len(subject) - 1)]

    return [word() for _ in range(length)]


def _edited(text: list[str], subject: list[str], share: float, dice: random.Random) -> list[str]:
    edited: list[str] = []
    places = set(dice.sample(range(len(text)), round(share * len(text))))
    for place, word in enumerate(text):
        if place not in places:
            edited.append(word)
            continue
        what = dice.random()
        if what < 0.6:
            edited.append(dice.choice(subject))
        elif what < 0.8:
            edited += [word, dice.choice(subject)]
    return edited


def pairs(groups: list[int]) -> set[tuple[int, int]]:
    """All pairs of documents of one group."""
    by_group: dict[int, list[int]] = {}
    for number, group in enumerate(groups):
        by_group.setdefault(group, []).append(number)
    return {(a, b) for group in by_group.values() for a in group for b in group if a < b}
