"""ImageSource: the images of one domain, each with its split."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from foretrain.corpus.splits import Split, describe, settle, shares, side
from foretrain.errors import RequestError
from foretrain.hashing import hash_data
from foretrain.images.inputs import ImageInput, open_images, refuse_other_shape
from foretrain.images.item import ImageItem

if TYPE_CHECKING:
    from foretrain.recipe import Domain

SMALL = 1_000
"""Up to so many different images a domain is small: `settle` sees to it that no split stays empty."""
_EXPLICIT: tuple[Split, ...] = ("validation", "steer")
_TEXT_ONLY = ("text", "where", "group", "invalid")


class ImageSource:
    """The images of one domain; its paths are looked up at once, and read only when asked for.

    An image's split is decided by the hash of its pixels, as a document's is by that of its text: equal images share
    a side, whatever their names, order or files.

    Args:
        name: of the domain, for messages.
        domain: the section of the recipe.

    Raises:
        RequestError: a file is missing or of another kind, an option is unknown, or a setting is for text only.
    """

    def __init__(self, name: str, domain: Domain) -> None:
        self.name, self.domain = name, domain
        self.dropped = 0
        for field in _TEXT_ONLY:
            if getattr(domain, field) != type(domain).model_fields[field].default:
                raise RequestError(
                    f"corpus.{name}.{field} is a setting of text; images have none such, so leave it out."
                )
        paths = [domain.path] if isinstance(domain.path, str) else domain.path
        self._inputs: dict[Split, list[ImageInput]] = {
            "train": [found for path in paths for found in open_images(path, domain.options)]
        }
        for split in _EXPLICIT:
            path = getattr(domain, split)
            if isinstance(path, str):
                # As for text: the options were written for the domain's own path.
                self._inputs[split] = open_images(path, domain.options if path in paths else None)

    def fingerprint(self) -> str:
        """Hash of everything that decides the images and their splits."""
        content = {split: [entry.identity() for entry in inputs] for split, inputs in self._inputs.items()}
        return hash_data({"format": 1, "content": content, "limit": self.domain.limit, "shares": shares(self.domain)})

    def items(self) -> Iterator[tuple[ImageItem, str, Split | None]]:
        """Every image, its key and its split, or None where `splits` will tell it.

        Images of explicit `validation` and `steer` paths come first. An image that stands there too is dropped from
        what comes later, and counted.

        Raises:
            RequestError: an image cannot be read, or is not of the same shape as the others.
        """
        self.dropped = 0
        taken: set[str] = set()
        first: ImageItem | None = None
        for split in (*_EXPLICIT, "train"):
            own: set[str] = set()
            inputs = self._inputs.get(split, [])
            for item in islice((item for entry in inputs for item in entry.items()), self.domain.limit):
                first = first or item
                refuse_other_shape(f"corpus.{self.name}", first, item)
                key = item.key
                if key in taken:
                    self.dropped += 1
                    continue
                own.add(key)
                yield item, key, split if split != "train" else None
            taken |= own

    def splits(self, keys: list[str]) -> dict[str, Split]:
        """The split of every key of the domain's own path.

        Raises:
            RequestError: a split that was asked for holds nothing.
        """
        numbers = {key: int(key, 16) for key in keys}
        asked = 1 + sum(share > 0 for share in shares(self.domain))
        if len(numbers) < asked:
            raise RequestError(
                f"corpus.{self.name}: {describe(self.domain)} holds {len(numbers)} different images, too few for "
                f"{asked} splits. Give it more, set 'validation: 0', or name a path for validation."
            )
        if len(numbers) < SMALL:
            settled = settle(numbers.values(), self.domain)
            return {key: settled[number] for key, number in numbers.items()}
        return {key: side(number, self.domain) for key, number in numbers.items()}

    def report(self) -> dict[str, Any]:
        """What was counted by the latest reading."""
        return {"dropped": self.dropped}
