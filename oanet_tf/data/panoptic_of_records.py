"""A panoptic JSON and its PNGs, made of the records of shards."""

import json
import pathlib
import shutil
from collections.abc import Mapping

import tqdm

from oanet_tf import files
from oanet_tf.data import image_ids, shard_files, tf_example
from oanet_tf.data.categories import PanopticCategories
from oanet_tf.data.interruptible import interruptible
from oanet_tf.data.panoptic_map import segments_info, write_panoptic_png
from oanet_tf.printing import shown


def write_panoptic(
  counts: Mapping[str, int], categories: PanopticCategories, json_path: pathlib.Path
) -> None:
  """Writes the truth of shards in COCO's format, as their images are: upright.

  Args:
    counts: how many records each shard has.
    categories: of the shards.
    json_path: of the JSON; the folder of the PNGs is beside it and has its stem. Both are replaced
      if they exist.

  Raises:
    InputError: if a shard is damaged, or a file cannot be written.
  """
  folder, images, annotations = json_path.with_suffix(''), [], []
  dataset = shard_files.records(counts).map(tf_example.decode_annotations)
  records = interruptible(dataset.as_numpy_iterator())
  total = sum(counts.values())
  with files.making_folder(folder) as staging:
    bar = tqdm.tqdm(records, shown(json_path.stem), total, unit='image')
    with shard_files.named_errors([*counts], with_images=False), bar:
      for record in bar:
        image_id = image_ids.decoded(record['source_id'].decode(errors='surrogatepass'))
        segments = tf_example.decoded_segments(record)
        png_name = f'{image_ids.file_stem(image_id)}.png'
        write_panoptic_png(staging / png_name, segments)
        height, width = segments.index.shape
        file_name = record['file_name'].decode(errors='surrogateescape')
        images.append({'id': image_id, 'file_name': file_name, 'height': height, 'width': width})
        annotations.append(
          {
            'image_id': image_id,
            'file_name': png_name,
            'segments_info': segments_info(segments, categories, str(image_id)),
          }
        )
    content = {
      'images': images, 'annotations': annotations, 'categories': categories.to_coco(),
    }  # fmt: skip
    files.write_text(json_path, json.dumps(content))
    if folder.exists():
      shutil.rmtree(folder)
