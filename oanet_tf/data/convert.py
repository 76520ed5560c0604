"""Converts a COCO panoptic dataset to TFRecord shards; the schema is in tfrecords/README.md."""

import contextlib
import functools
import itertools
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tqdm

from oanet_tf import files, printing
from oanet_tf.data import (
  coco_json,
  coco_panoptic,
  panoptic_of_instances,
  panoptic_of_records,
  tf_example,
)
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.coco_json import ImageEntry
from oanet_tf.data.coco_panoptic import LabelsAre, PanopticRecord
from oanet_tf.data.objects import Overlaps, has_conflict, overlapping
from oanet_tf.data.panoptic_of_instances import OnTop
from oanet_tf.data.parallel import map_in_order
from oanet_tf.data.resume import OnError, Progress, SkippedImage, Split, Summary, sha256
from oanet_tf.data.tf_example import MaskEncoding
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath

# About 100 MB for COCO.
IMAGES_PER_SHARD = 500
MAX_DEFAULT_SHARDS = 256


class Encoded(NamedTuple):
  """One image: its features, None if it is left out; its counts; the error if it has one."""

  features: tf_example.Features | None
  summary: Summary
  error: str | None


def convert(
  image_dir: FilePath | None,
  panoptic_json: FilePath | None,
  panoptic_dir: FilePath | None,
  output_dir: FilePath,
  split: str,
  instances_json: FilePath | None = None,
  num_shards: int | None = None,
  num_workers: int | None = None,
  on_error: OnError = 'raise',
  mask_encoding: MaskEncoding = 'cropped',
  overlaps: Overlaps = 'fill_holes',
  conflicts_only: bool = False,
  things: str | Sequence[str] | None = None,
  labels_are: LabelsAre = 'upright',
  stuff: str | Sequence[str] = (),
  on_top: OnTop = 'smaller',
  semantic_dir: FilePath | None = None,
) -> Summary:
  """Writes `<split>-00000-of-000NN.tfrecord`, `<split>_summary.json` and `categories.json`.

  Without `panoptic_json` and `panoptic_dir`, these are made of `instances_json` first, and stay as
  `<split>_panoptic.json` and `<split>_panoptic`; see `panoptic_of_instances`.

  Where annotations had to be turned upright with their images, `<split>_upright.json` and
  `<split>_upright` have all annotations as they are in the shards, to score predictions against.

  Images keep the order of the panoptic JSON, from shard to shard. The bytes depend neither on
  `num_workers` nor on how often the conversion was interrupted.
  However the conversion ends (an error, Ctrl-C, SIGTERM, `kill -9`), finished shards stay, and the
  same call goes on after them; see `resume`. If no shard was finished, no file is left.

  Args:
    image_dir: folder of the images; None leaves them out, for `task.mode=srm_only` alone.
    panoptic_json: COCO panoptic annotations; None if there are none.
    panoptic_dir: folder of the panoptic PNGs; None likewise.
    output_dir: made if it is missing.
    split: how the shards' names begin, e.g. 'train'.
    instances_json: COCO instance annotations, whose masks may overlap.
    num_shards: default: one per 500 images, at most 256.
    num_workers: processes; default: the number of CPUs. 1 starts none.
    on_error: 'raise' ends the conversion at an image whose files or masks are wrong; 'skip' leaves
      it out and lists it in the summary. Under 'raise', shards that an earlier 'skip' left
      incomplete are made again. Errors in a JSON file always end the conversion.
    mask_encoding: see `tf_example.features`.
    overlaps: how objects are made from panoptic masks; see `objects.objects_of_segments`.
    conflicts_only: leaves out images without a conflict; see `objects.has_conflict`.
    things: names of the thing categories; None takes what the JSON's `isthing` says.
    labels_are: of pictures that EXIF turns, whether annotations are of the picture as a viewer
      shows it, 'upright', or of the pixels 'as_stored', where the size does not tell.
    stuff: without panoptic annotations, the names of the stuff categories; with `semantic_dir`,
      also NAME=VALUE for one that `instances_json` lacks. All other categories are things.
    on_top: without panoptic annotations, which of two masks lies on top: 'smaller' or 'later'.
    semantic_dir: without panoptic annotations, a folder of PNGs whose pixels are category ids: the
      stuff.

  Raises:
    InputError: if the dataset or an argument is wrong, see `coco_json.load`; if `output_dir` is one
      of the other folders, or has other shards of this split; if no image is left; if a file
      cannot be written.
  """
  target = _target(output_dir, split, (image_dir, panoptic_dir, semantic_dir))
  stuff = files.as_list(stuff)
  check_inputs(panoptic_json, panoptic_dir, instances_json, stuff, on_top, semantic_dir, things)
  coco_json.check_folder(image_dir)
  left_out: list[SkippedImage] = []
  if panoptic_json is None or panoptic_dir is None:
    assert instances_json is not None  # As was checked.
    panoptic_json = target.folder / f'{split}_panoptic.json'
    with target.only_run():
      panoptic_dir, left_out = panoptic_of_instances.write_panoptic(
        instances_json, panoptic_json, stuff, on_top, semantic_dir, num_workers,
        may_replace=not target.summary_path.exists(), on_error=on_error,
      )  # fmt: skip
  printing.note(f'reading {panoptic_json}')
  things = None if things is None else files.as_list(things)
  dataset = coco_json.load(panoptic_json, panoptic_dir, image_dir, instances_json, things)
  for note in dataset.notes:
    printing.note(note)
  shards = _deal(dataset.entries, target, num_shards)
  settings: dict[str, Any] = {
    'mask_encoding': mask_encoding,
    'overlaps': overlaps,
    'conflicts_only': conflicts_only,
    'labels_are': labels_are,
  }
  made_of = _made_of(
    panoptic_json, instances_json, len(shards), image_dir is None, {**settings, 'things': things}
  )
  _check_categories(target.folder, dataset.categories)
  encode = functools.partial(_encode_image, dataset.categories, on_error, **settings)
  start = Progress(made_of, dataset.num_unannotated - len(left_out), {}, left_out)
  with target.only_run():
    progress = target.resume(shards, start, on_error == 'skip')
    _write_shards(target, shards, progress, encode, num_workers)
    if not (target.folder / CATEGORIES_FILE).exists():
      dataset.categories.to_json(target.folder / CATEGORIES_FILE)
    summary = progress.total()
    if summary.turned_images:
      panoptic_of_records.write_panoptic(
        {str(target.folder / name): part.images for name, part in sorted(progress.shards.items())},
        dataset.categories,
        target.upright_path,
      )
    target.write(progress._replace(is_complete=True))
  return summary


def check_inputs(
  panoptic_json: FilePath | None,
  panoptic_dir: FilePath | None,
  instances_json: FilePath | None,
  stuff: Sequence[str],
  on_top: OnTop,
  semantic_dir: FilePath | None,
  things: str | Sequence[str] | None,
) -> None:
  """Raises `InputError` if these arguments of `convert` do not go together."""
  if (panoptic_json is None) != (panoptic_dir is None):
    raise InputError('panoptic_json and panoptic_dir go together')
  if panoptic_json is None and instances_json is None:
    raise InputError('panoptic_json and panoptic_dir are missing, or else instances_json')
  if panoptic_json is not None and (stuff or on_top != 'smaller' or semantic_dir is not None):
    raise InputError('stuff, on_top and semantic_dir are for data without a panoptic_json')
  if panoptic_json is None and things is not None:
    raise InputError('things is for a panoptic_json; without one, name the stuff')
  if semantic_dir is not None and not stuff:
    raise InputError('semantic_dir needs stuff, the names of the stuff categories')


def _target(output_dir: FilePath, split: str, inputs: Sequence[FilePath | None]) -> Split:
  if not re.fullmatch(r'[\w.-]+', split):
    raise InputError(f'split {split!r} is not made of letters, digits, _, - and . only')
  folder = pathlib.Path(output_dir)
  for read in inputs:
    if read is not None and folder.resolve() == pathlib.Path(read).resolve():
      raise InputError(f'{output_dir}: is read from; use another output folder')
  return Split(folder, split)


def _made_of(
  panoptic_json: FilePath,
  instances_json: FilePath | None,
  num_shards: int,
  without_images: bool,
  settings: dict[str, Any],
) -> dict[str, Any]:
  """What the shards' bytes depend on, but for options that are off.

  So a conversion goes on that was begun before there were these options.
  """
  settings = {**settings, 'without_images': without_images}
  return {
    'panoptic_json': sha256(panoptic_json),
    'instances_json': sha256(instances_json) if instances_json else None,
    'num_shards': num_shards,
    **{key: value for key, value in settings.items() if value and value != 'upright'},
    'schema_version': tf_example.SCHEMA,
  }


def _check_categories(folder: pathlib.Path, categories: PanopticCategories) -> None:
  path = folder / CATEGORIES_FILE
  if path.exists():
    PanopticCategories.from_json(path).check_same(categories)


def _deal(
  entries: list[ImageEntry], split: Split, num_shards: int | None
) -> dict[str, list[ImageEntry]]:
  """Consecutive entries for each shard, by its name."""
  count = len(entries)
  num_shards = num_shards or min(max(1, round(count / IMAGES_PER_SHARD)), MAX_DEFAULT_SHARDS)
  if num_shards > count:
    raise InputError(f'{num_shards} shards are too many for {count} images')
  bounds = [count * i // num_shards for i in range(num_shards + 1)]
  pieces = [entries[start:stop] for start, stop in itertools.pairwise(bounds)]
  return dict(zip(split.shard_names(num_shards), pieces, strict=True))


def _write_shards(
  split: Split,
  shards: dict[str, list[ImageEntry]],
  progress: Progress,
  encode: Callable[[ImageEntry], Encoded],
  num_workers: int | None,
) -> None:
  """Writes the shards that `progress` lacks, and adds them to it; some image must be left."""
  missing = {name: of_shard for name, of_shard in shards.items() if name not in progress.shards}
  if not progress.shards:
    split.summary_path.unlink(missing_ok=True)
  elif missing:
    split.write(progress)
  for name in missing:
    (split.folder / name).unlink(missing_ok=True)
  entries = list(itertools.chain.from_iterable(missing.values()))
  total, title = sum(map(len, shards.values())), printing.shown(split.name)
  with (
    tqdm.tqdm(total=total, initial=total - len(entries), desc=title, unit='image') as bar,
    contextlib.closing(map_in_order(encode, entries, num_workers)) as encoded,
  ):
    for name, of_shard in missing.items():
      path = split.folder / name
      with files.replacing(path, durable=True) as temporary:
        _write_shard(path, temporary, of_shard, encoded, bar, progress)
        # Before the shard gets its name, so that the summary lists every shard there is.
        split.write(progress)
  if not (summary := progress.total()).images:
    raise InputError(f'{split.folder}: no image of split {split.name!r} is left. {summary}')


def _write_shard(
  path: pathlib.Path,
  temporary: pathlib.Path,
  entries: list[ImageEntry],
  encoded: Iterator[Encoded],
  bar: tqdm.tqdm,
  progress: Progress,
) -> None:
  """Takes as many images from `encoded` as there are entries, and adds them to the progress."""
  import tensorflow as tf

  total, skipped = Summary(), []
  try:
    with tf.io.TFRecordWriter(str(temporary)) as writer:
      for entry, image in zip(entries, encoded, strict=False):
        if image.features is not None:
          writer.write(tf_example.serialize(image.features))
        elif image.error is not None:
          skipped.append(SkippedImage(entry.image_id, entry.file_name, image.error, path.name))
        total = total.plus(image.summary)
        bar.update()
  except tf.errors.OpError as error:
    raise InputError(f'{path}: cannot be written ({error.message})') from None
  progress.shards[path.name] = total._replace(bytes=temporary.stat().st_size)
  progress.skipped.extend(skipped)


def _encode_image(
  categories: PanopticCategories,
  on_error: OnError,
  entry: ImageEntry,
  *,
  mask_encoding: MaskEncoding,
  overlaps: Overlaps,
  conflicts_only: bool,
  labels_are: LabelsAre,
) -> Encoded:
  try:
    record = coco_panoptic.read_record(entry, categories, overlaps, labels_are)
    if conflicts_only and not has_conflict(record.objects, record.segments):
      return Encoded(None, Summary(images_without_conflict=1), None)
    features = tf_example.features(record, mask_encoding)
  except InputError as error:
    if on_error == 'raise':
      raise
    return Encoded(None, Summary(skipped_images=1), str(error))
  return Encoded(features, _summary(entry, record), None)


def _summary(entry: ImageEntry, record: PanopticRecord) -> Summary:
  objects, instances = record.objects, entry.instances
  num_objects = len(objects.masks)
  return Summary(
    images=1,
    segments=len(record.segments.ids),
    crowd_segments=int(record.segments.is_crowd.sum()),
    objects=num_objects,
    crowd_objects=int(objects.is_crowd.sum()),
    overlapping_objects=int(overlapping(objects, record.height, record.width).sum()),
    images_without_objects=int(num_objects == 0),
    images_from_panoptic=int(instances is None),
    pixels=record.height * record.width,
    void_pixels=record.height * record.width - int(np.count_nonzero(record.segments.index)),
    empty_instances=0 if instances is None else len(instances) - num_objects,
    empty_segments=record.num_empty_segments,
    turned_images=int(record.is_turned),
    images_of_unsure_turn=int(record.is_turn_unsure),
  )
