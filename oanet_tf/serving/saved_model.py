"""Exports a SavedModel with two signatures for TensorFlow Serving."""

# B images, H, W canvas.

import pathlib
from collections.abc import Iterator

import tensorflow as tf

from oanet_tf import files
from oanet_tf.config.values import MAX_IMAGE_PIXELS, MAX_IMAGE_SIDE
from oanet_tf.data.categories import CATEGORIES_FILE, PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.serving import warmup
from oanet_tf.serving.encoded_images import decode_images
from oanet_tf.serving.image_limits import assert_limits
from oanet_tf.serving.panoptic_module import SEGMENT_INPUTS, PanopticModule
from oanet_tf.serving.parity import Format, Parity, Results, Source, first_results, parity_of

Outputs = dict[str, tf.Tensor]

INPUTS = {
  'serving_default': tf.TensorSpec([None, None, None, 3], tf.uint8, name='image'),
  'serving_bytes': tf.TensorSpec([None], tf.string, name='image_bytes'),
}


class ServedModule(tf.Module):
  """The functions of the signatures, and the categories as the asset `assets/categories.json`.

  They give the results of `PanopticModule`, and `segment_label`, [B, L] string: the names of the
  segments' categories, '' in the padding.
  """

  def __init__(self, panoptic: PanopticModule, categories_path: pathlib.Path):
    super().__init__()
    self.panoptic = panoptic
    self.categories = tf.saved_model.Asset(str(categories_path))
    categories = PanopticCategories.from_json(categories_path)
    self._names = ['', *(category.name for category in categories)]

  def serving_default(self, image: tf.Tensor) -> Outputs:
    """[B, H, W, 3] uint8 RGB images of one size -> results."""
    # Loaders in other languages do not check their inputs.
    image = tf.ensure_shape(image, [None, None, None, 3])
    number, height, width, _ = tf.unstack(tf.shape(image))
    shapes = tf.tile([[height, width]], [number, 1])
    with tf.control_dependencies([assert_limits(shapes)]):
      return self._named(self.panoptic.segment(tf.identity(image), shapes))

  def serving_bytes(self, image_bytes: tf.Tensor) -> Outputs:
    """[B] images for `encoded_images.decode_images` -> results."""
    image_bytes = tf.ensure_shape(image_bytes, [None])
    prepared = decode_images(image_bytes, self.panoptic.prepare)
    return self._named(self.panoptic.segment_prepared(prepared))

  def _named(self, results: Outputs) -> Outputs:
    labels = tf.gather(tf.constant(self._names), results['segment_label_id'])
    return {**results, 'segment_label': labels}


def write(source: Source, folder: pathlib.Path) -> None:
  """Writes the SavedModel into an empty folder.

  Raises:
    InputError: if the files cannot be written, `tensorflow-serving-api` is missing, or an image is
      larger than the signatures accept.
  """
  warmup.check_installed()
  for name, (height, width, _) in zip(
    source.image_names, (image.shape for image in source.images), strict=True
  ):
    if height * width > MAX_IMAGE_PIXELS or max(height, width) > MAX_IMAGE_SIDE:
      raise InputError(
        f'{name}: has {height} x {width} pixels; a SavedModel takes {MAX_IMAGE_PIXELS} at most, '
        f'and {MAX_IMAGE_SIDE} along a side'
      )
  module = ServedModule(source.module(), source.folder.path / CATEGORIES_FILE)
  # Functions that are attributes of the module would all be traced again.
  signatures = {
    name: tf.function(getattr(module, name), [spec], autograph=False).get_concrete_function()
    for name, spec in INPUTS.items()
  }
  with files.writing_by_tensorflow(folder):
    tf.saved_model.save(module, str(folder), signatures)
    warmup.write_requests(source.images[0], folder)


def compare(source: Source, folder: pathlib.Path) -> Parity:
  """Compares the SavedModel with the network in memory, as `oanet_tf.predict` runs it."""
  expected_of = tf.function(source.module().segment, list(SEGMENT_INPUTS), autograph=False)
  signature = tf.saved_model.load(files.for_tensorflow(folder)).signatures['serving_default']

  def pairs() -> Iterator[tuple[Results, Results]]:
    for image in source.images:
      images, shapes = tf.constant(image[None]), tf.constant([image.shape[:2]])
      yield first_results(expected_of(images, shapes)), first_results(signature(image=images))

  return parity_of(source.image_names, pairs())


# It is the same graph, but TensorFlow optimizes it again and may round otherwise, which shows in a
# pixel of a million where two logits are equal, or in the last digits of a score.
FORMAT = Format(write, compare, least_same_pixels=0.9999, largest_score_difference=1e-4)
