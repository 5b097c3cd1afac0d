"""What parts that bring data, models and feedback promise, and how it is seen."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import tempfile
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from foretrain.checks.promises import equal, need, title
from foretrain.checks.trial import (
    OF_MODALITY,
    Figures,
    trial,
    untouched,
)
from foretrain.corpus.decoding import Decoder
from foretrain.corpus.document import Document
from foretrain.errors import RequestError
from foretrain.growth.network import Layout, Network
from foretrain.hashing import hash_data
from foretrain.images.subject import ImageSubject
from foretrain.modalities.base import modality_of
from foretrain.models.base import family

TEXTS = ("Plain text.", "naïve Straße — 東京 🙂", "  two  spaces\n\n\tand a tab ", "def f(x):\n    return x ** 2\n", "")


def check_builtin(part: Any, recipe: Figures) -> None:
    """The same documents at each reading, none empty, no id twice."""
    first, second = (list(islice(part.documents(), 50)) for _ in range(2))
    need(len(first) > 0, f"{title(part)} holds no document")
    need(first == second, f"{title(part)}: its documents change from one reading to the next")
    need(all(document.text.strip() for document in first), f"{title(part)}: a document is empty")
    need(len({document.id for document in first}) == len(first), f"{title(part)}: two documents have one id")
    for document in first:
        need(json.dumps(dataclasses.asdict(document)) != "", f"{title(part)}: metadata is plain data")


def check_scorer(part: Any, recipe: Figures) -> None:
    """A finite number for each document, of its own making; plain data say what decides it."""
    name, texts = title(part), [text for text in TEXTS if text.strip()]
    part = part.model_copy(deep=True)
    part.setup(trial(recipe).plan.recipe.models)
    # Whatever field a scorer asks for is there.
    numbers = {value: float(place) for place, value in enumerate(part.model_dump().values()) if isinstance(value, str)}
    documents = [Document(str(place), text, "check", dict(numbers)) for place, text in enumerate(texts * 2)]
    first = list(part.scores(iter(documents)))
    need(len(first) == len(documents) and all(map(math.isfinite, first)), f"{name}: one finite number a document")
    backwards = list(part.scores(iter(documents[::-1])))[::-1]
    need(first == backwards, f"{name}: the score of a document depends on the others")
    need(hash_data(part.content()) == hash_data(part.content()), f"{name}: `content` changes from call to call")


def check_order(part: Any, recipe: Figures) -> None:
    """Every document has one place, and every window comes once an epoch, whatever is asked for first."""
    name, stride = title(part), 7
    scores = np.array([3.0, 1.0, 2.0, 1.0, 5.0])
    places = part.arranged(scores)
    held = [0, 1, 2, 3, 4] if places is None else sorted(places.tolist())
    need(part.repeats or held == [0, 1, 2, 3, 4], f"{name}: each document has one place")
    need(set(held) <= {0, 1, 2, 3, 4}, f"{name}: a place is of no document")
    ends = np.cumsum([3, 12, 1, 5, 29] * 10)
    tokens = SimpleNamespace(tokens=500, document_ends=lambda: (ends, ends))
    order = part.windows(tokens, stride, 3)
    for epoch in range(2):
        numbers = np.arange(order.windows, dtype=np.int64) + epoch * order.windows
        starts = order.starts(numbers)
        covered = np.unique((starts[:, None] + np.arange(stride)) % 500)
        distinct = (
            len(np.unique(starts)) == order.windows if not part.covers else len(covered) == 500 // stride * stride
        )
        need(distinct, f"{name}: each window comes once an epoch")
        again = part.windows(tokens, stride, 3).starts(numbers[::-1].copy())[::-1]
        need(np.array_equal(starts, again), f"{name}: a window depends on what was asked for before")
    need(part.identity("a") == part.identity("a") != part.identity("b"), f"{name}: its hash is of the set and itself")


def check_tokenizer(part: Any, recipe: Figures) -> None:
    """The same texts give the same tokenizer; ids of decoded text are its ids; it survives being saved."""
    texts = [f"{text} {number}" for number in range(50) for text in TEXTS]
    made, again = part.build(lambda: iter(texts)), part.build(lambda: iter(texts))
    need(made.hash == again.hash, f"{title(part)}: the same texts give another tokenizer")
    need(made.eos is not None, f"{title(part)}: there is no id that ends a document")
    ids = made.encode(TEXTS)
    need(all(0 <= each < made.vocabulary for row in ids for each in row), f"{title(part)}: an id has no embedding row")
    need(made.encode([made.decode(row) for row in ids]) == ids, f"{title(part)}: ids of decoded text are other ids")
    with tempfile.TemporaryDirectory() as folder:
        made.save(Path(folder))
        need(type(made).load(folder).hash == made.hash, f"{title(part)}: it is another one after it was saved")


def check_format(part: Any, recipe: Figures) -> None:
    """Broken files are read or refused in words that name them; records are numbered in order."""
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate((b"", b"\x00\xff\xfe\n\n{", b"plain\n")):
            path = Path(folder) / f"{number}.{part.kind}"
            path.write_bytes(content)
            try:
                numbers = [record.number for record in part.records(path, Decoder())]
            except RequestError as error:
                need(str(path) in str(error), f"{title(part)}: an error does not name the file ({error})")
                continue
            need(numbers == sorted(set(numbers)), f"{title(part)}: the numbers of its records do not rise")


def check_image_format(part: Any, recipe: Figures) -> None:
    """Broken files are refused in words that name them."""
    need(len(part.suffixes) > 0, f"{title(part)} has no suffix")
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate((b"", b"\x00\xff\xfe\n\n{", b"plain\n")):
            path = Path(folder) / f"{number}{part.suffixes[0]}"
            path.write_bytes(content)
            try:
                list(part.items(path, path.name))
            except RequestError as error:
                need(str(path) in str(error), f"{title(part)}: an error does not name the file ({error})")
            else:
                need(False, f"{title(part)}: it takes {content!r} for images")


def check_image_set(part: Any, recipe: Figures) -> None:
    """The same images at each reading, all of one shape, no id twice."""
    try:
        first, second = (list(islice(part.items(), 50)) for _ in range(2))
    except RequestError as error:
        need("pip install" in str(error), f"{title(part)}: a missing package is not named in words ({error})")
        return
    need(len(first) > 0, f"{title(part)} holds no image")
    need([item.key for item in first] == [item.key for item in second], f"{title(part)}: its images change")
    need(len({item.id for item in first}) == len(first), f"{title(part)}: two images have one id")
    need(len({item.pixels.shape for item in first}) == 1, f"{title(part)}: its images are of several shapes")
    for item in first:
        fits = item.mask is None or item.mask.shape == item.pixels.shape[1:]
        need(item.pixels.dtype == np.uint8 and fits, f"{title(part)}: an image is uint8, and its mask of its size")


def check_modality(part: Any, recipe: Figures) -> None:
    """It reads its own trial corpus, knows the families of its models, and can say what a row holds."""
    changes = {**OF_MODALITY.get(part.kind, {}), **recipe}
    trainer = trial(changes)
    plan = trainer.plan
    paths = [path for domain in plan.recipe.corpus.values() for path in [domain.path] if isinstance(path, str)]
    need(plan.modality == part and all(map(part.reads, paths)), f"{title(part)} does not read its own trial corpus")
    need(family(plan.config) in part.families, f"{title(part)}: its model is of a family that it does not know")
    batch = trainer.objective.prepare(trainer.stream.batch())
    words = part.row({name: tensor[0] for name, tensor in batch.items()}, plan.tokenizer)
    need(bool(words), f"{title(part)} has no words for a row of a batch")
    with tempfile.TemporaryDirectory() as folder:
        plan.processor.save(Path(folder))
        need(any(Path(folder).iterdir()), f"{title(part)} leaves nothing beside an exported model")


def check_model(part: Any, recipe: Figures) -> None:
    """Built from the seed alone, in float32 and eval mode, with the parameters of its skeleton."""
    vocabulary, special = 390, dict.fromkeys(("bos", "eos", "pad", "mask"), 0)
    config = part.config(vocabulary, special)
    with untouched(part):
        model = part.build(config, 3)
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    skeleton = part.skeleton(config)
    need(
        shapes == {name: parameter.shape for name, parameter in skeleton.named_parameters()},
        f"{title(part)}: `skeleton` has other parameters than `build`",
    )
    need(
        all(parameter.dtype == torch.float32 for parameter in model.parameters()), f"{title(part)} is built in float32"
    )
    need(not model.training, f"{title(part)} is built in eval mode")
    need(equal(model.state_dict(), part.build(config, 3).state_dict()), f"{title(part)}: one seed gives two models")
    length = min(8, part.context_length(config))
    with torch.no_grad():
        if family(config) == "vision":
            whole, found = ImageSubject(model).features(_noise(config))
            need(whole.shape == (1, config.hidden_size), f"{title(part)}: features have shape {list(whole.shape)}")
            need(found[0, ..., 0].numel() == part.context_length(config), f"{title(part)}: its context is its patches")
        else:
            found = model(input_ids=torch.arange(length)[None]).logits
            need(found.shape == (1, length, config.vocab_size), f"{title(part)}: logits have shape {list(found.shape)}")
    need(bool(torch.isfinite(found).all()), f"{title(part)}: a fresh model gives numbers that are not finite")
    need(modality_of(config).shape(config) != {}, f"{title(part)} reads what no modality knows of")


def check_growth(part: Any, recipe: Figures) -> None:
    """The shapes that it says, the same each time, and every number finite; what it was given is left alone."""
    name = title(part)
    plain = trial(recipe).plan.build_model()
    assert isinstance(plain, PreTrainedModel)
    small = Network.of(plain)
    target = copy.deepcopy(small.config)
    for size in ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads", "intermediate_size"):
        setattr(target, size, 2 * getattr(target, size))
    reached = part.shape(small.config, target)
    with untouched(part, plain):
        first, again = part.grow(small, reached, 3), part.grow(small, reached, 3)
    shapes = {name: tuple(tensor.shape) for name, tensor in first.weights.items()}
    need(shapes == Layout(reached).shapes, f"{name}: `grow` gives other shapes than `shape` says")
    need(equal(dict(first.weights), dict(again.weights)), f"{name}: one seed gives two networks")
    need(all(bool(w.isfinite().all()) for w in first.weights.values()), f"{name}: a weight is not finite")
    need(bool(shapes != Layout(small.config).shapes), f"{name} makes nothing larger")
    own = {tensor.data_ptr() for tensor in small.weights.values()}
    need(not own & {tensor.data_ptr() for tensor in first.weights.values()}, f"{name}: shares tensors with its source")
    list(part.notes(small.config, reached))


def _noise(config: Any) -> Tensor:
    """One image of random pixels for a vision model."""
    shape = (1, config.num_channels, config.image_size, config.image_size)
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def check_feedback(part: Any, recipe: Figures) -> None:
    """A step draws the same items each time; gradient and loss agree, and leave the model as it was."""
    need(list(part.texts()) == list(part.texts()), f"{title(part)}: the texts of its items change")
    trainer = trial({**recipe, "feedback": {"checked": part}})
    names, masters = list(trainer.learner.masters), trainer.learner.masters
    with untouched(part, trainer.learner.model):
        found = trainer.context.feedback("checked")
        need(found.items > 0, f"{title(part)} has no item")
        first, again, other = (found.gradient(step, 2, names) for step in (0, 0, 1))
        losses = [found.loss(step, 2) for step in (0, 0, 1)]
    need(equal(first, again) and losses[0] == losses[1], f"{title(part)}: one step draws other items the second time")
    need(set(first[0]) == set(names), f"{title(part)}: its gradient is over other parameters than it was asked for")
    need(all(math.isfinite(loss) for loss in losses), f"{title(part)}: a loss is not finite")
    need(math.isclose(first[1], losses[0], rel_tol=1e-4), f"{title(part)}: `gradient` and `loss` see other losses")
    need(found.items <= 2 or not equal(first, other), f"{title(part)}: every step draws the same items")
    need(all(weight.grad is None for weight in masters.values()), f"{title(part)}: its gradient is left in `.grad`")
