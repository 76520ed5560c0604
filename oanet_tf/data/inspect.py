"""Shows what is in TFRecord shards: `oanet inspect --help`."""

# H, W image, M objects, h, w an object's box.

import argparse
import itertools
import json
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import tqdm
from PIL import Image

from oanet_tf import files
from oanet_tf.arguments import ArgumentParser, add_overwrite
from oanet_tf.data import inspect_pictures, shard_files, tf_example
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.data.interruptible import interruptible
from oanet_tf.data.objects import Objects, overlapping
from oanet_tf.errors import InputError, first_line, run

STATISTICS_FILE = 'statistics.json'
CATEGORIES_PICTURE = 'categories.png'
CONTACT_SHEET = 'contact_sheet.png'
# Viewers cannot open larger contact sheets.
MAX_IMAGES = 100


class Statistics:
  """Adds up counts over records."""

  def __init__(self, categories: PanopticCategories):
    self._categories = categories
    self._label_of_id = categories.label_of_id_table()
    self._heights, self._widths, self._objects_per_image = [], [], []
    self._crowd_segments = self._crowd_objects = 0
    self._overlapping_boxes = self._overlapping_masks = 0
    # By label, 0 being void.
    self._segments, self._objects, self._images, self._pixels = np.zeros(
      [4, categories.num_labels], np.int64
    )

  def add(self, record: inspect_pictures.Record) -> None:
    """Adds a record of `checked_records`."""
    self._heights.append(int(record['height']))
    self._widths.append(int(record['width']))
    self._objects_per_image.append(len(record['object_masks']))
    self._crowd_segments += int(record['segment_is_crowd'].sum())
    self._crowd_objects += int(record['object_is_crowd'].sum())
    objects = Objects(*(record[f'object_{name}'] for name in Objects._fields))
    self._overlapping_boxes += int(overlapping_boxes(objects.boxes).sum())
    self._overlapping_masks += int(overlapping(objects, *record['segment_index'].shape).sum())

    segment_labels = self._label_of_id[record['segment_category_ids']]
    object_labels = self._label_of_id[record['object_category_ids']]
    areas = np.bincount(record['segment_index'].ravel(), minlength=len(segment_labels) + 1)
    np.add.at(self._segments, segment_labels, 1)
    np.add.at(self._objects, object_labels, 1)
    self._images[np.union1d(segment_labels, object_labels)] += 1
    np.add.at(self._pixels, np.concatenate([[0], segment_labels]), areas)

  def to_json(self) -> dict:
    """The counts of at least one record as plain numbers.

    `images_without_things` have no object. A median is a value that occurs, the lower of two. Each
    `pixel_share` is a fraction of all pixels; with `void_share` they add up to 1.
    """
    fractions = (self._pixels / self._pixels.sum()).tolist()
    return {
      'records': len(self._heights),
      'segments': int(self._segments.sum()),
      'crowd_segments': self._crowd_segments,
      'objects': sum(self._objects_per_image),
      'crowd_objects': self._crowd_objects,
      'objects_with_overlapping_box': self._overlapping_boxes,
      'objects_with_overlapping_mask': self._overlapping_masks,
      'images_without_things': self._objects_per_image.count(0),
      'void_share': fractions[0],
      'image_height': _spread(self._heights),
      'image_width': _spread(self._widths),
      'objects_per_image': _spread(self._objects_per_image),
      'categories': [
        {
          'id': category.id,
          'name': category.name,
          'isthing': int(category.is_thing),
          'segments': int(self._segments[label]),
          'objects': int(self._objects[label]),
          'images': int(self._images[label]),
          'pixel_share': fractions[label],
        }
        for label, category in enumerate(self._categories, start=1)
      ],
    }


def _spread(values: Sequence[int]) -> dict[str, int]:
  return {'min': min(values), 'median': statistics.median_low(values), 'max': max(values)}


def overlapping_boxes(boxes: np.ndarray) -> np.ndarray:
  """[M] bool: which of [M, 4] boxes share area with another one."""
  top_left = np.maximum(boxes[:, np.newaxis, :2], boxes[:, :2])
  bottom_right = np.minimum(boxes[:, np.newaxis, 2:], boxes[:, 2:])
  return (top_left < bottom_right).all(axis=-1).sum(axis=1) > 1  # Each box overlaps itself.


def read_categories(shards: Sequence[pathlib.Path], file: str | None) -> PanopticCategories:
  """Reads the categories from a file, or else from `categories.json` beside the shards.

  Raises:
    InputError: if the file is missing or malformed, or the shards are of different categories.
  """
  if file:
    return PanopticCategories.from_json(file)
  paths = list(dict.fromkeys(shard.parent / CATEGORIES_FILE for shard in shards))
  for path in paths:
    if not path.exists():
      raise InputError(f'{path}: there is no such file; name the right one with --categories')
  categories = PanopticCategories.from_json(paths[0])
  for path in paths[1:]:
    PanopticCategories.from_json(path).check_same(categories)
  return categories


def checked_records(
  shard: pathlib.Path, count: int, categories: PanopticCategories
) -> Iterator[inspect_pictures.Record]:
  """Yields `count` records: `tf_example.decode`'s dicts, with masks as M arrays [h, w] bool.

  Raises:
    InputError: if the shard is damaged, or a record is not of the schema, has an unknown category
      or contradicts itself.
  """
  import tensorflow as tf

  dataset = (
    shard_files.records_of(str(shard), count)
    .map(tf_example.traced(tf_example.decode), tf.data.AUTOTUNE, deterministic=True)
    .prefetch(2)
  )
  records = interruptible(dataset.as_numpy_iterator())
  for index in itertools.count():
    try:
      record = next(records)
      masks = [tf.io.decode_png(png, channels=1).numpy() for png in record['object_masks']]
    except StopIteration:
      return
    except tf.errors.InvalidArgumentError as error:
      raise InputError(
        f'{shard}: record {index} is no panoptic record of schema {tf_example.SCHEMA} '
        f'({shard_files.fact(error)})'
      ) from None
    except tf.errors.OpError as error:
      raise InputError(f'{shard}: {first_line(error)}; convert or copy it again') from None
    record = {**record, 'object_masks': [mask[..., 0] > 0 for mask in masks]}
    fault = _misfit(record, categories) or _contradiction(record)
    if fault:
      raise InputError(f'{shard}: image {inspect_pictures.source_id(record)} {fault}')
    yield record


def _misfit(record: inspect_pictures.Record, categories: PanopticCategories) -> str | None:
  objects, segments = (record[f'{kind}_category_ids'].tolist() for kind in ('object', 'segment'))
  for category_id in segments + objects:
    if category_id not in categories:
      return (
        f'has category {category_id}, which is unknown; is {CATEGORIES_FILE} of another dataset?'
      )
  for category_id in objects:
    if not categories.is_thing(categories.label(category_id)):
      return (
        f'has an object of category {category_id}, stuff; is {CATEGORIES_FILE} of another dataset?'
      )
  return None


def _contradiction(record: inspect_pictures.Record) -> str | None:
  size = (int(record['height']), int(record['width']))
  if record['image'].shape[:2] != size or record['segment_index'].shape != size:
    return f'is not of the size {size} that its record gives; convert it again'
  if record['segment_index'].max(initial=0) > len(record['segment_ids']):
    return 'has a pixel of a segment that is not listed; convert it again'
  for box, mask in zip(record['object_boxes'], record['object_masks'], strict=True):
    inside = (box >= 0).all() and (box[2:] <= size).all()
    if not inside or (box[2:] - box[:2] != mask.shape).any():
      return 'has an object whose box and mask do not fit; convert it again'
  return None


def table(counts: Mapping) -> str:
  """Formats `Statistics.to_json` as text."""
  spread = {
    key: '{min:,} … {median:,} … {max:,}'.format(**counts[key])
    for key in ('image_height', 'image_width', 'objects_per_image')
  }
  rows = {
    'records': f'{counts["records"]:,}',
    'without things': f'{counts["images_without_things"]:,}',
    'height in pixels': f'{spread["image_height"]} (least … median … greatest)',
    'width in pixels': spread['image_width'],
    'void': f'{inspect_pictures.percent(counts["void_share"])} of the pixels',
    'segments': f'{counts["segments"]:,}, of which crowds: {counts["crowd_segments"]:,}',
    'objects': f'{counts["objects"]:,}, of which crowds: {counts["crowd_objects"]:,}',
    'objects per image': spread['objects_per_image'],
    'whose box overlaps': f'{counts["objects_with_overlapping_box"]:,}',
    'whose mask overlaps': f'{counts["objects_with_overlapping_mask"]:,}',
  }
  lines = [f'{name:<20} {value}' for name, value in rows.items()]
  columns = '{:>5} {:<32} {:<5} {:>9} {:>9} {:>9} {:>11}'
  heading = ('id', 'category', '', 'segments', 'objects', 'images', 'of pixels')
  lines += ['', columns.format(*heading)]
  for c in counts['categories']:
    name, kind = inspect_pictures.shortened(c['name']), 'thing' if c['isthing'] else 'stuff'
    numbers = [f'{c[key]:,}' for key in ('segments', 'objects', 'images')]
    fraction = inspect_pictures.percent(c['pixel_share'])
    lines.append(columns.format(c['id'], name, kind, *numbers, fraction))
  return '\n'.join(lines)


def inspect(
  shards: Sequence[pathlib.Path],
  categories: PanopticCategories,
  output_dir: pathlib.Path,
  num_images: int = 16,
  overwrite: bool = False,
) -> dict:
  """Reads all shards once, and writes the statistics and both pictures.

  Args:
    shards: TFRecord files.
    categories: of the shards.
    output_dir: made if it is missing.
    num_images: images to draw, spread evenly over the shards.
    overwrite: whether results that are there may be replaced.

  Returns:
    `Statistics.to_json`.

  Raises:
    InputError: if a shard is damaged or does not fit the categories, or the folder cannot be
      written, has results or is that of the shards.
  """
  files.check_output_folder(output_dir, shards)
  for name in (STATISTICS_FILE, CATEGORIES_PICTURE, CONTACT_SHEET):
    files.check_output_file(output_dir / name, overwrite=overwrite)
  with files.only_one(output_dir, 'inspection'):
    return _inspect(shards, categories, output_dir, num_images)


def _inspect(
  shards: Sequence[pathlib.Path],
  categories: PanopticCategories,
  output_dir: pathlib.Path,
  num_images: int,
) -> dict:
  counts = shard_files.whole_records(shards)
  total = sum(counts.values())
  num_images = min(num_images, total)
  drawn = {(2 * i + 1) * total // (2 * num_images) for i in range(num_images)}
  totals, images = Statistics(categories), []
  numbered = itertools.count()
  with tqdm.tqdm(total=total, desc='inspecting', unit='image') as bar:
    for shard in shards:
      for record in checked_records(shard, counts[str(shard)], categories):
        totals.add(record)
        if next(numbered) in drawn:
          images.append(inspect_pictures.draw_record(record, categories, shard.name))
        bar.update()
  found = totals.to_json()
  histogram = inspect_pictures.draw_categories(
    found['categories'], [category.color for category in categories]
  )
  files.write_text(output_dir / STATISTICS_FILE, json.dumps(found, indent=1) + '\n')
  _save(histogram, output_dir / CATEGORIES_PICTURE)
  _save(inspect_pictures.contact_sheet(images), output_dir / CONTACT_SHEET)
  return found


def _save(image: Image.Image, path: pathlib.Path) -> None:
  with files.replacing(path) as temporary, files.writing(path):
    image.save(temporary, 'PNG')


def main(arguments: Sequence[str] | None = None) -> None:
  """The command line; `arguments` are `sys.argv[1:]` unless given."""
  parser = ArgumentParser(
    prog='oanet inspect',
    description='Shows what is in TFRecord shards. Prints a table, and writes it as '
    f'{STATISTICS_FILE}, with a histogram of the categories ({CATEGORIES_PICTURE}) and some images '
    f'with their segments and objects ({CONTACT_SHEET}).',
  )
  parser.add_argument('shards', nargs='+', metavar='SHARDS', help='TFRecord files, or globs')
  parser.add_argument(
    '--output_dir', required=True, type=pathlib.Path, help='folder of the results'
  )
  parser.add_argument(
    '--categories', metavar='FILE', help=f'default: {CATEGORIES_FILE} beside the shards'
  )
  parser.add_argument(
    '--num_images',
    type=_image_count,
    default=16,
    help=f'images to draw, 1 to {MAX_IMAGES}, spread evenly over the shards (default: 16)',
  )
  add_overwrite(parser)
  arguments = parser.parse_args(arguments)
  shards = [pathlib.Path(shard) for shard in shard_files.find_shards(arguments.shards)]
  categories = read_categories(shards, arguments.categories)
  counts = inspect(
    shards, categories, arguments.output_dir, arguments.num_images, arguments.overwrite
  )
  print(table(counts))
  print(f'\n{arguments.output_dir}: {STATISTICS_FILE}, {CATEGORIES_PICTURE}, {CONTACT_SHEET}')


def _image_count(text: str) -> int:
  value = int(text)
  if not 1 <= value <= MAX_IMAGES:
    raise argparse.ArgumentTypeError(f'{value} is not in [1, {MAX_IMAGES}]')
  return value


if __name__ == '__main__':
  run(main)
