"""What a steered run leaves beside its curves: figures of its part and pictures of its tokens, simulated."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import yaml

from foretrain.pictures import Drawn, Picture, PictureRow, PictureToken
from foretrain.run_directory import RunDirectory

TEXTS = {
    "questions": (
        "Question: Mira picks 24 apples in the morning and 18 in the afternoon. She packs them into bags of 6. How "
        "many bags does she fill?\nAnswer: She picks 24 + 18 = 42 apples. She fills 42 / 6 = 7 bags.\n#### 7\n\n"
        "Question: A train goes 60 km in an hour. How far does it go in 3 hours?\nAnswer: It goes 3 * 60 = 180 "
        "km.\n#### 180\n",
        "Question: Tom reads 12 pages a day for 5 days, and then 20 pages a day for 2 days. How many pages does he "
        "read in all?\nAnswer: In the first 5 days he reads 12 * 5 = 60 pages. In the last 2 days he reads 20 * 2 = 40 "
        "pages. In all he reads 60 + 40 = 100 pages.\n#### 100\n",
    ),
    "prose": (
        "The old man had gone down to the harbour before it was light, as he did every morning of that winter, and "
        "stood for a long time looking at the boats. None of them would go out. The wind had turned in the night, and "
        "beyond the wall the sea was white as far as he could see; he counted the waves, as he had done when he was "
        "a boy.",
        "“You will not find it there,” she said, “for there is nothing left to find.” He did not answer her at once. "
        "It was seven o’clock, and the naïve café owner had begun to put the chairs out into the sun.",
    ),
    "code": (
        'def total(prices, rate=0.2):\n    """The sum of all prices with tax."""\n    return sum(price * (1 + rate) '
        "for price in prices)\n\n\nclass Basket:\n\tdef __init__(self):\n\t\tself.items = []\n\n"
        "\tdef add(self, item):\n\t\tself.items.append(item)\n",
    ),
}
OTHERS = (" the", " a", " 6", " 42", " she", ",", ".", "\n", " bags", " of", " in", " 7", " and", " was", "s")


def picture(seed: int = 3) -> Picture:
    """Several hundred tokens, the numbers among them with large values, one of them without any."""
    rng = np.random.Generator(np.random.Philox(seed))
    rows = []
    for number in range(2):
        for domain, texts in TEXTS.items():
            if number < len(texts):
                rows.append(PictureRow(domain, tuple(_tokens(rng, domain, texts[number]))))
    caption = (
        "The value of a token is how fast the mean log-probability of the feedback answers would rise with a step of "
        "the learner towards it: − ∂L/∂ε along the unit gradient of the feedback loss, in nats per unit of weight."
    )
    return Picture("v_pretraining", caption, "a step towards it raises the feedback loss", "lowers it", tuple(rows))


def _tokens(rng: np.random.Generator, domain: str, text: str) -> list[PictureToken]:
    found = []
    for place, piece in enumerate(re.findall(r" ?[A-Za-zïé’]{1,6}| ?\d+| ?[^\sA-Za-z\d]|\n+|\t+| +", text)):
        wide = 0.02 if any(letter.isdigit() for letter in piece) and domain == "questions" else 0.004
        value = float(rng.laplace(0.35 * wide if domain == "questions" else -0.001, wide))
        alpha = float(np.clip(rng.beta(1.2, 3), 0, 1) * 0.5)
        shares = rng.dirichlet(np.full(9, 0.4)) * alpha
        others = [OTHERS[index] for index in rng.permutation(len(OTHERS))[:8] if OTHERS[index] != piece]
        note = [(piece, 1 - alpha + float(shares[8])), *zip(others, shares[:8].tolist(), strict=False)]
        note = sorted(((candidate, round(share, 4)) for candidate, share in note), key=lambda pair: -pair[1])[:8]
        plain = place == 0
        detail = "" if plain else f"gate {alpha:.2f}, loss {rng.gamma(1.4, 1.1):.2f} nats"
        found.append(PictureToken(piece, None if plain else value, () if plain else tuple(note), detail))
    return found


def steer(run: RunDirectory, drawn: list[Drawn] | None = None) -> RunDirectory:
    """Make a simulated run a steered one: a part in its recipe, figures in its metrics, a picture."""
    recipe = yaml.safe_load(run.recipe_path.read_text())
    recipe["steering"] = [{"kind": "v_pretraining", "feedback": "questions", "every": 8}]
    run.recipe_path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    rng = np.random.Generator(np.random.Philox(5))
    lines: list[dict[str, Any]] = []
    for line in run.metrics():
        step = line["step"]
        if step and step % 8 == 0:
            grown = 1 - math.exp(-step / 300)
            line["v_pretraining/alpha"] = 0.05 + 0.2 * grown + rng.normal(0, 0.006)
            line["v_pretraining/target_entropy"] = 0.2 + 0.7 * grown + rng.normal(0, 0.03)
            line["v_pretraining/cosine"] = 0.1 + 0.25 * grown + rng.normal(0, 0.04)
            line["v_pretraining/feedback_norm"] = 1.4 - 0.8 * grown + rng.gamma(2, 0.05)
            line["v_pretraining/learner_norm"] = 0.9 - 0.5 * grown + rng.gamma(2, 0.03)
            line["v_pretraining/fallbacks"] = 0
            line["feedback/questions/gradient_norm"] = 3 + 3 * grown + rng.normal(0, 0.2)
            line["feedback/questions/loss"] = 2.2 + 4.5 / (1 + step / 60) + rng.normal(0, 0.05)
        lines.append(line)
    run.metrics_path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(run, [Drawn("v_pretraining", picture())] if drawn is None else drawn)
    return RunDirectory(run.path)


def write(run: RunDirectory, drawn: list[Drawn]) -> None:
    """The file of pictures of a run."""
    run.pictures_path.write_text(json.dumps([each.plain() for each in drawn]))
