"""Prepare: from the domains of a recipe to image sets on disk, each made once and found again by content.

`images/HASH/` in the cache is a domain (`image_set.py`), named by the hash of its inputs and settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from foretrain.corpus.overlap import Overlap
from foretrain.corpus.splits import Split
from foretrain.errors import RequestError
from foretrain.files import cache_folder, read_json, write_json
from foretrain.hashing import hash_data
from foretrain.images.image_set import FORMAT, ImageSet, ImageWriter
from foretrain.images.source import ImageSource
from foretrain.recipe import Domain
from foretrain.tokens.cache import made_once
from foretrain.tokens.prepare import SPLITS, Prepared, Progress


def prepare_images(
    corpus: Mapping[str, Domain],
    *,
    patches: int,
    items: Mapping[str, list[str]] | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Read the images that have not been read before, and open them.

    Args:
        corpus: domains by name.
        patches: tokens that an image counts for.
        items: keys of images that the corpus must not hold (feedback, tasks), by the name of their set.
        cache: where prepared data is kept; `$FORETRAIN_CACHE` or `~/.cache/foretrain` by default.
        progress: told of the images read.

    Raises:
        RequestError: an input is missing or wrong, domains differ in their shape, or one that should be trained on has
            nothing to train on.
        CorruptFile: a set in the cache is damaged.
        RunError: the cache's disk is full.
    """
    cache = cache or cache_folder()
    prepared = Prepared(None, {}, {}, {"corpus": {}, "tokens": {}})
    shapes: dict[str, tuple[int, ...]] = {}
    for name, domain in corpus.items():
        source = ImageSource(name, domain)
        folder = made_once(
            cache / "images" / hash_data({"format": FORMAT, "images": source.fingerprint()}),
            lambda temporary, source=source: _write(temporary, source, progress),  # type: ignore[misc]
        )
        manifest = read_json(folder / "manifest.json")
        sets = {split: ImageSet(folder, split, patches) for split in SPLITS}
        sets = {split: found for split, found in sets.items() if found.documents}
        _need_training_images(name, domain, sets)
        shapes[name] = next(iter(sets.values())).shape
        prepared.sets[name] = dict(sets)
        prepared.reports[name] = manifest
        prepared.hashes["corpus"][name] = manifest["content"]
        prepared.hashes["tokens"][name] = {split: found.hash for split, found in sets.items()}
        if manifest["dropped"]:
            left_out = f"{manifest['dropped']} images that its validation or steer path holds too"
            prepared.warnings.append(f"Domain '{name}': {left_out} were left out.")
        prepared.overlaps += _overlaps(name, sets, items or {})
    _refuse_several_shapes(shapes)
    return prepared


def _write(folder: Path, source: ImageSource, progress: Progress | None) -> None:
    known: list[Split | None] = []
    with ImageWriter(folder) as writer:
        for item, key, split in source.items():
            writer.append(item, key)
            known.append(split)
            if progress is not None and len(known) % 256 == 0:
                progress(len(known), source.name)
        settled = source.splits([key for key, split in zip(writer.keys, known, strict=True) if split is None])
        splits = [split or settled[key] for key, split in zip(writer.keys, known, strict=True)]
        writer.finish({split: [place for place, own in enumerate(splits) if own == split] for split in SPLITS})
    counts = {split: {"images": splits.count(split)} for split in SPLITS}
    # Of the images themselves: what they were made by may change without changing any.
    content = hash_data({"ids": writer.ids, "keys": writer.keys, "splits": splits})
    write_json(folder / "manifest.json", {"format": FORMAT, "content": content, "splits": counts, **source.report()})


def _need_training_images(name: str, domain: Domain, sets: Mapping[Split, ImageSet]) -> None:
    if domain.weight > 0 and "train" not in sets:
        raise RequestError(
            f"corpus.{name}: none of its {sum(found.documents for found in sets.values())} images is left to train on; "
            "they are all in the validation or steer split. Lower those shares, give it more images, or set its weight "
            "to 0."
        )


def _refuse_several_shapes(shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Rows of several domains stand in one batch, so their images are of one shape."""
    first, *others = shapes
    for other in others:
        if shapes[other] != shapes[first]:
            raise RequestError(
                f"The images of domain '{first}' are {list(shapes[first])} (channels, height, width) and those of "
                f"domain '{other}' {list(shapes[other])}; the images of all domains should be of one shape."
            )


def _overlaps(name: str, sets: Mapping[Split, ImageSet], items: Mapping[str, list[str]]) -> list[Overlap]:
    """The items whose pixels stand in a domain, once each."""
    if not items:
        return []
    places = {key: (found, number) for found in sets.values() for number, key in enumerate(found.keys())}
    return [
        Overlap(items_name, number, name, places[key][0].ids[places[key][1]], 1.0)
        for items_name, keys in items.items()
        for number, key in enumerate(keys)
        if key in places
    ]
