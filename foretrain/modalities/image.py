"""Images: pictures become rows of pixels, and a patch counts as a token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from torch import nn
from transformers import PretrainedConfig

from foretrain.corpus.overlap import Overlap, SharedItem, describe_shared
from foretrain.errors import RequestError
from foretrain.images.image_set import ImageSet
from foretrain.images.inputs import holds_images
from foretrain.images.item import ImageItem
from foretrain.images.prepare import prepare_images
from foretrain.images.processor import ImageProcessor
from foretrain.images.subject import ImageSubject
from foretrain.modalities.base import HeldOut, Modality
from foretrain.models.base import Family, patches
from foretrain.parts import Facts
from foretrain.tokens.prepare import Prepared, Progress
from foretrain.tokens.tokenizer import TextTokenizer

if TYPE_CHECKING:
    from foretrain.recipe import Recipe


class Image(Modality):
    """Pictures of one size; models of it are vision transformers.

    Tokens are patches: `batch.tokens` over the patches of an image (`model.image`, `model.patch`) are the images of a
    step, and an epoch is every image once. A batch has `pixels` uint8 [rows, channels, height, width].
    """

    kind: Literal["image"] = "image"
    facts: ClassVar[Facts] = Facts(answers="what does a run learn from? images")
    families: ClassVar[tuple[Family, ...]] = ("vision",)
    noun: ClassVar[str] = "images"
    counting: ClassVar[tuple[str, str]] = ("Reading", "images")

    def reads(self, path: str) -> bool:
        return holds_images(path)

    def held_out(self, recipe: Recipe) -> HeldOut:
        tasks = {f"task {name}": _keys(task.images()) for name, task in recipe.tasks.items()}
        feedback = {f"feedback {name}": _keys(part.images()) for name, part in recipe.feedback.items()}
        shared = describe_shared(list(_shared(feedback, tasks)))
        if shared:
            raise RequestError(shared)
        return {name: found for name, found in {**tasks, **feedback}.items() if found}

    def prepare(
        self, recipe: Recipe, items: HeldOut, tokenizer: TextTokenizer | None, progress: Progress | None
    ) -> Prepared:
        if recipe.documents != "packed":
            raise RequestError(f"documents: {recipe.documents} is a setting of text; an image is always on its own.")
        for name, domain in recipe.corpus.items():
            for setting in ("part", "metadata"):
                if getattr(domain, setting) is not None:
                    raise RequestError(f"corpus.{name}.{setting} is a setting of text; leave it out.")
            if domain.keep is not None:
                raise RequestError(f"corpus.{name}.keep is a setting of text; `limit` reads fewer images.")
        config = recipe.model.config(1, {})
        return prepare_images(recipe.corpus, patches=patches(config), items=items, progress=progress)

    def describe_overlaps(self, overlaps: Sequence[Overlap]) -> str:
        if not overlaps:
            return ""
        shown = ", ".join(
            f"item {entry.number + 1} of {entry.items} is {entry.document} of '{entry.domain}'"
            for entry in overlaps[:3]
        )
        more = f", and {len(overlaps) - 3} more" if len(overlaps) > 3 else ""
        return (
            "The corpus holds images it is to be judged or steered by, pixel for pixel, so the result would mean "
            f"nothing: {shown}{more}."
        )

    def config(self, recipe: Recipe, prepared: Prepared) -> PretrainedConfig:
        config = recipe.model.config(1, {})
        for name, splits in prepared.sets.items():
            for found in splits.values():
                assert isinstance(found, ImageSet)
                channels = found.shape[0]
                if channels != config.num_channels:
                    raise RequestError(
                        f"corpus.{name}: its images have {channels} channel{'s' if channels > 1 else ''}, and the "
                        f"model reads {config.num_channels} (model.channels). Set model.channels: {channels}, or "
                        "convert the images."
                    )
        return config

    def shape(self, config: PretrainedConfig) -> dict[str, int]:
        return {"image": config.image_size, "patch": config.patch_size, "channels": config.num_channels}

    def load_tokenizer(self, folder: Path) -> TextTokenizer | None:
        return None

    def processor(self, config: PretrainedConfig, tokenizer: TextTokenizer | None) -> ImageProcessor:
        return ImageProcessor.of(config)

    def loading(self, model_type: str) -> Sequence[str]:
        return (
            "from transformers import AutoImageProcessor, AutoModel",
            'model = AutoModel.from_pretrained(".", add_pooling_layer=False)',
            'processor = AutoImageProcessor.from_pretrained(".", backend="pil")',
        )

    def subject(self, model: nn.Module, tokenizer: TextTokenizer | None, context: int) -> ImageSubject:
        return ImageSubject(model)

    def samples(self, subject: ImageSubject, seed: int) -> list[dict[str, str]]:
        return []

    def row(self, tensors: Mapping[str, Any], tokenizer: TextTokenizer | None) -> str:
        pixels = tensors["pixels"]
        mean = ", ".join(f"{value:.0f}" for value in pixels.float().mean((1, 2)))
        return f"{'x'.join(map(str, pixels.shape))} pixels, mean {mean}"


def _keys(items: Iterable[ImageItem]) -> list[str]:
    return [item.key for item in items]


def _shared(first: HeldOut, second: HeldOut) -> Iterable[SharedItem]:
    places = {key: (name, number) for name, keys in first.items() for number, key in enumerate(keys)}
    for name, keys in second.items():
        for number, key in enumerate(keys):
            if key in places:
                yield SharedItem(*places[key], name, number)
