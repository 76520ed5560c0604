"""A COCO panoptic JSON and its PNGs, made of an instances JSON as labelling tools export it.

Stuff is annotations of the categories that are named as stuff, or comes from semantic PNGs. Things
lie over stuff, and crowds below other things.

H, W height and width of an image, M annotations with a mask, K stuff categories.
"""

import difflib
import functools
import itertools
import json
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from oanet_tf import files
from oanet_tf.data import coco_json, semantic_png
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.coco_json import InstancesFile
from oanet_tf.data.json_file import check_unique, field, read_json_object
from oanet_tf.data.objects import Instance, Objects, objects_of_instances
from oanet_tf.data.panoptic_map import Segments, runs, segments_info, write_panoptic_png
from oanet_tf.data.parallel import map_chunks
from oanet_tf.data.pictures import MAX_PIXELS, unique_name
from oanet_tf.data.resume import OnError, SkippedImage, sha256
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath
from oanet_tf.printing import note

OnTop = Literal['smaller', 'later']
# In the `info` of the JSON.
_LEFT_OUT = 'left_out'


class LabelledImage(NamedTuple):
  """One image of an instances JSON.

  Attributes:
    image_id: the dataset's.
    file_name: of the image, relative to its folder.
    height: H, in pixels.
    width: W, in pixels.
    png_name: of its PNGs, relative to their folders.
    instances: its annotations.
    semantic_path: of its semantic PNG; None if there are none.
  """

  image_id: int | str
  file_name: str
  height: int
  width: int
  png_name: str
  instances: list[Instance]
  semantic_path: str | None = None


class Labels(NamedTuple):
  """What an instances JSON says of all images.

  Attributes:
    source: the JSON's path.
    categories: with those that only semantic PNGs have.
    images: in the JSON's order.
    made_of: what the panoptic files' bytes depend on, by name.
  """

  source: str
  categories: PanopticCategories
  images: list[LabelledImage]
  made_of: dict[str, Any]


def write_panoptic(
  instances_json: FilePath,
  json_path: pathlib.Path,
  stuff: Sequence[str] = (),
  on_top: OnTop = 'smaller',
  semantic_dir: FilePath | None = None,
  num_workers: int | None = None,
  may_replace: bool = True,
  on_error: OnError = 'raise',
) -> tuple[pathlib.Path, list[SkippedImage]]:
  """Writes a panoptic JSON, and its PNGs into the folder beside it that has the JSON's stem.

  Files that were made of the same input are kept. An interrupted call leaves no PNG, and the next
  one starts again.

  Args:
    instances_json: COCO instance annotations.
    json_path: of the panoptic JSON; its folder exists.
    stuff: names of the stuff categories; NAME=VALUE for one that only the semantic PNGs have.
    on_top: see `panoptic_segments`.
    semantic_dir: folder of semantic PNGs, see `semantic_png`; annotations of stuff are then left
      out.
    num_workers: processes; default: the number of CPUs. 1 starts none.
    may_replace: whether files that were made of other input are replaced.
    on_error: 'skip' leaves out images with a mask or semantic PNG that is wrong, and lists them in
      the JSON's `info`; with 'raise', files that lack such images are made again.

  Returns:
    The folder of the PNGs, and the images that are left out.

  Raises:
    InputError: if the input is wrong, files of other origin are in the way, or a file cannot be
      written.
  """
  folder = json_path.with_suffix('')
  labels = read_labels(instances_json, stuff, on_top, semantic_dir, on_error)
  left_out = _left_out_before(json_path, labels, may_replace)
  if left_out is not None and not (left_out and on_error == 'raise'):
    return folder, left_out
  with files.making_folder(folder) as staging:
    write = functools.partial(_write_pngs, labels._replace(images=[]), on_top, staging, on_error)
    chunks = map_chunks(write, labels.images, folder.name, num_workers)
    made = list(itertools.chain.from_iterable(chunks))
    left_out = [one for one in made if isinstance(one, SkippedImage)]
    if left_out:
      note(
        f'{labels.source}: {len(left_out)} images with an error are left out; the first: '
        f'{left_out[0].reason}'
      )
    if len(left_out) == len(made):
      raise InputError(f'{labels.source}: no image is left')
    content = {
      'info': {'made_of': labels.made_of, _LEFT_OUT: [one._asdict() for one in left_out]},
      'images': [
        {'id': i.image_id, 'file_name': i.file_name, 'height': i.height, 'width': i.width}
        for i in labels.images
      ],
      'annotations': [one for one in made if not isinstance(one, SkippedImage)],
      'categories': labels.categories.to_coco(),
    }
    # Before the folder gets its name, so that there is no such folder whose origin is unknown.
    files.write_text(json_path, json.dumps(content), durable=True)
    if folder.exists():
      shutil.rmtree(folder)
  return folder, left_out


def _left_out_before(
  json_path: pathlib.Path, labels: Labels, may_replace: bool
) -> list[SkippedImage] | None:
  """The images that panoptic files which are there already leave out; None if they are not there.

  Raises:
    InputError: if there are files that must not be replaced.
  """
  folder = json_path.with_suffix('')
  if not json_path.exists():
    if folder.exists():
      raise InputError(f'{folder}: is in the way, as its JSON is missing; remove it')
    return None
  content = read_json_object(
    json_path, lambda entry: {key: value for key, value in entry.items() if key != 'segments_info'}
  )
  info = content.get('info')
  before = info.get('made_of') if isinstance(info, dict) else None
  if not isinstance(before, dict):
    raise InputError(f'{json_path}: was not made of an instances JSON; use another output folder')
  if before == labels.made_of:
    left_out = [SkippedImage(**one) for one in info.get(_LEFT_OUT, [])]
    missing = {one.image_id for one in left_out}
    is_whole = all(
      (folder / image.png_name).is_file()
      for image in labels.images
      if image.image_id not in missing
    )
    return left_out if is_whole else None
  for key in {**labels.made_of, **before}:
    then, now = before.get(key), labels.made_of.get(key)
    if then != now and not may_replace:
      raise InputError(
        f'{json_path}: was made with another {key} ({then}, now {now}), and so were the shards; '
        'remove the shards and their summary, or use another output folder'
      )
  return None


def _write_pngs(
  labels: Labels,
  on_top: OnTop,
  folder: pathlib.Path,
  on_error: OnError,
  images: Sequence[LabelledImage],
) -> list[dict | SkippedImage]:
  """Writes the panoptic PNGs of images, of which `labels` has none; gives their annotations."""
  categories = labels.categories
  stuff_ids = [category.id for category in categories if not category.is_thing]
  thing_ids = [category.id for category in categories if category.is_thing]
  annotations: list[dict | SkippedImage] = []
  for image in images:
    size = image.height, image.width
    try:
      if image.height * image.width > MAX_PIXELS:
        raise InputError(
          f'{labels.source}: image {image.image_id}: is said to have {image.width} × '
          f'{image.height} pixels, more than {MAX_PIXELS:,}'
        )
      if image.semantic_path is None:
        stuff = np.zeros(size, np.int32)
      else:
        stuff = semantic_png.read_stuff(image.semantic_path, *size, stuff_ids, thing_ids)
      objects = objects_of_instances(image.instances, *size, labels.source)
    except InputError as error:
      if on_error == 'raise':
        raise
      annotations.append(SkippedImage(image.image_id, image.file_name, str(error)))
      continue
    segments = panoptic_segments(objects, stuff, stuff_ids, on_top)
    path = folder / image.png_name
    with files.writing(path):
      path.parent.mkdir(parents=True, exist_ok=True)
      write_panoptic_png(path, segments)
    annotations.append(
      {
        'image_id': image.image_id,
        'file_name': image.png_name,
        'segments_info': segments_info(segments, categories, str(path)),
      }
    )
  return annotations


def panoptic_segments(
  objects: Objects, stuff: np.ndarray, stuff_ids: Sequence[int], on_top: OnTop
) -> Segments:
  """Lays the masks over each other: first stuff, then crowds, then all other things.

  Args:
    objects: M annotations, those of stuff among them.
    stuff: [H, W] int32, what lies below them: k for the k-th of `stuff_ids`, 0 for void.
    stuff_ids: K category ids, sorted. Each of these categories becomes one segment.
    on_top: what lies on top within each of the three layers. 'smaller': the mask of smaller area,
      of equal ones the later; 'later': the later.

  Returns:
    The things that can be seen, in the order of `objects`, then the stuff, in that of `stuff_ids`.
  """
  count = len(objects.masks)
  is_stuff = np.isin(objects.category_ids, stuff_ids)
  is_crowd = objects.is_crowd & ~is_stuff
  layers = np.select([is_stuff, is_crowd], [0, 1], 2)
  areas = np.array([np.count_nonzero(mask) for mask in objects.masks])
  # The M things, then the K stuff categories; each has its number, from 1.
  places = np.searchsorted(stuff_ids, objects.category_ids)
  numbers = 1 + np.where(is_stuff, count + places, np.arange(count))
  index = np.where(stuff, stuff + count, 0)
  # Stable, so that later ones come later.
  for k in np.lexsort((-areas if on_top == 'smaller' else np.zeros(count), layers)):
    y1, x1, y2, x2 = objects.boxes[k].astype(int)
    index[y1:y2, x1:x2][objects.masks[k]] = numbers[k]
  starts, _ = runs(index)
  seen = np.setdiff1d(index.ravel()[starts], 0)
  ids = np.arange(1, len(seen) + 1, dtype=np.int32)
  table = np.zeros(1 + count + len(stuff_ids), np.int32)
  table[seen] = ids
  category_ids = np.concatenate([objects.category_ids, np.array(stuff_ids, np.int32)])
  crowds = np.concatenate([is_crowd, np.zeros(len(stuff_ids), bool)])
  return Segments(table[index], ids, category_ids[seen - 1], crowds[seen - 1])


def read_labels(
  instances_json: FilePath,
  stuff: Sequence[str] = (),
  on_top: OnTop = 'smaller',
  semantic_dir: FilePath | None = None,
  on_error: OnError = 'raise',
) -> Labels:
  """Reads and checks an instances JSON; prints how many of its annotations are left out.

  See `write_panoptic` for the arguments.

  Raises:
    InputError: if the JSON, a name of stuff or a folder is wrong, or a semantic PNG is missing and
      `on_error` is 'raise'.
  """
  source = str(instances_json)
  note(f'reading {source}')
  content = coco_json.read_instances(source)
  annotations = list(itertools.chain.from_iterable(content.instances.values()))
  if not annotations and semantic_dir is None:
    raise InputError(f'{source}: `annotations` is empty')
  categories = _categories(content, annotations, stuff, source, semantic_dir is not None)
  images = [
    _image(entry, content.instances[entry['id']], source) for entry in content.images.values()
  ]
  made_of = {'instances_json': sha256(source), 'stuff': sorted(stuff), 'on_top': on_top}
  png_names = [image.png_name for image in images]
  if semantic_dir is None:
    taken: set[str] = set()
    png_names = [f'{unique_name(name.removesuffix(".png"), taken)}.png' for name in png_names]
    images = [image._replace(png_name=name) for image, name in zip(images, png_names, strict=True)]
  else:
    check_unique(png_names, f'{source}: with the suffix .png, image file')
    paths = semantic_png.find_semantic_pngs(semantic_dir, png_names, on_error == 'skip')
    made_of['semantic_pngs'] = semantic_png.digest(paths)
    images = [_with_stuff_of(*pair, categories) for pair in zip(images, paths, strict=True)]
  _warn_of_crowds(annotations, categories, source)
  if count := sum(not annotation.segmentation for annotation in annotations):
    note(f'{source}: {count} annotations without a mask are left out')
  if count := len(annotations) - sum(len(image.instances) for image in images):
    note(f'{source}: {count} annotations of stuff are left out for {semantic_dir}')
  return Labels(source, categories, images, made_of)


def _warn_of_crowds(
  annotations: Iterable[Instance], categories: PanopticCategories, source: str
) -> None:
  things = [one for one in annotations if categories.of_id(one.category_id).is_thing]
  if things and 2 * (count := sum(one.is_crowd for one in things)) > len(things):
    # CVAT and Datumaro write masks of the brush so.
    note(
      f'{source}: {count} of {len(things)} things are crowds (`iscrowd: 1`), from which no object '
      'is learned; export polygons, or set `iscrowd` to 0 (tfrecords/README.md, From labelling '
      'tools)'
    )


def _image(entry: dict, instances: list[Instance], source: str) -> LabelledImage:
  image_id, file_name, height, width = (entry[k] for k in ('id', 'file_name', 'height', 'width'))
  where = f'{source}: image {image_id}'
  return LabelledImage(image_id, file_name, height, width, _png_name(file_name, where), instances)


def _png_name(file_name: str, where: str) -> str:
  """The image's with another suffix; only the last part if it leads elsewhere."""
  path = pathlib.PurePosixPath(file_name.replace('\\', '/'))
  if path.is_absolute() or '..' in path.parts:
    path = pathlib.PurePosixPath(path.name)
  if path.name in ('', '..') or '\0' in file_name:
    raise InputError(f'{where}: {file_name!r} is the name of no file')
  return str(path.with_suffix('.png'))


def _with_stuff_of(
  image: LabelledImage, path: str, categories: PanopticCategories
) -> LabelledImage:
  """The image with a semantic PNG in place of its annotations of stuff."""
  things = [one for one in image.instances if categories.of_id(one.category_id).is_thing]
  return image._replace(instances=things, semantic_path=path)


def _categories(
  content: InstancesFile,
  annotations: Iterable[Instance],
  stuff: Sequence[str],
  source: str,
  has_pngs: bool,
) -> PanopticCategories:
  """The JSON's categories, and those that only semantic PNGs have.

  All are things but those that are named as stuff. A category that only groups others, as
  Roboflow's first, is left out if no annotation is of it.
  """
  entries = field({'categories': content.categories}, 'categories', list, source)
  names = {}
  for index, entry in enumerate(entries):
    where = f'{source}: category {index}'
    names[field(entry, 'id', int, where)] = field(entry, 'name', str, where)
  used = set()
  for annotation in annotations:
    used.add(annotation.category_id)
    if annotation.category_id not in names:
      raise InputError(
        f'{source}: annotation {annotation.annotation_id}: category {annotation.category_id} is '
        'not in `categories`'
      )
  groups = [entry.get('supercategory') for entry in entries]
  entries = [
    entry
    for entry in entries
    if entry['id'] in used or entry.get('supercategory') != 'none' or entry['name'] not in groups
  ]
  names = {entry['id']: entry['name'] for entry in entries}
  of_pngs = {}
  for text in stuff:
    name, equals, value = text.rpartition('=')
    if text in names.values():
      continue
    if not (equals and name and value.isdecimal()):
      nearest = difflib.get_close_matches(text, names.values(), n=3, cutoff=0)
      raise InputError(f'{source}: has no category {text!r}; the nearest: {", ".join(nearest)}')
    if not has_pngs:
      raise InputError(f'{source}: has no category {name!r}, and there are no semantic PNGs')
    if int(value) in names or name in names.values():
      raise InputError(f'{source}: already has a category {name!r} or the id {value}')
    of_pngs[name] = int(value)
  categories = PanopticCategories.from_coco(
    [
      *({**entry, 'isthing': int(entry['name'] not in stuff)} for entry in entries),
      *({'id': value, 'name': name, 'isthing': 0} for name, value in of_pngs.items()),
    ],
    source,
  )
  if not categories.num_things:
    raise InputError(f'{source}: all categories are named as stuff, so that nothing is a thing')
  return categories
