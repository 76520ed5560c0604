"""Network and fusion as one function from images to segments, which is what is exported."""

# B images, H, W canvas, A, B network input, N detections, M mask side, L rows of the segment table.

import functools
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from oanet_tf.data import geometry
from oanet_tf.data.preprocess import network_input
from oanet_tf.data.resizing import DTYPES
from oanet_tf.model_folder import Trained
from oanet_tf.modeling.fusion.fuser import FusionBatch, Panoptic
from oanet_tf.modeling.fusion.methods import fuse
from oanet_tf.serving.fixed_canvas import FixedCanvas
from oanet_tf.serving.segment_table import segment_table

# Inputs of `PanopticModule.segment`. No static shape depends on the images, so it is traced once.
SEGMENT_INPUTS = (
  tf.TensorSpec([None, None, None, 3], tf.uint8),
  tf.TensorSpec([None, 2], tf.int32),
)
_MAPS = ('panoptic_category_mask', 'panoptic_instance_mask')


class Prepared(NamedTuple):
  """What the network sees of an image, or of a batch.

  Attributes:
    image: [M, M, 3] of a type in `resizing.DTYPES`, at the top left of zeros; M is the longer side
      of the network input.
    image_info: [4, 2] as in `data.geometry`.
  """

  image: tf.Tensor
  image_info: tf.Tensor


class PanopticModule(tf.Module):
  """Segments uint8 images exactly as `oanet_tf.predict` does.

  Categories in the results are the dataset's ids. The results are
    panoptic_category_mask: [B, H, W] int32; void, and what is outside the image, is 0, or -1 if a
      category has the id 0.
    panoptic_instance_mask: [B, H, W] int32: 1 + the index of the detection, 0 for stuff and void.
    image_shape: [B, 2] int32, [height, width] of each image within the masks.
    num_segments, segment_…: of `segment_table`.
    num_detections: [B] int32.
    detection_boxes: [B, N, 4] float32, [y1, x1, y2, x2] in pixels of the image.
    detection_scores: [B, N] float32, descending.
    detection_classes: [B, N] int32.
    detection_masks: [B, N, M, M] float32, probabilities within the box.
    ranking_scores: [B, N] float32, of the spatial ranking module (Eq. 3), also where the fusion
      orders instances of one category by detection score.

  Args:
    trained: the network.
    method: of fusion, a key of `methods.FUSIONS` except 'oracle'.
    segments_only: whether the results are only the masks, `image_shape` and the segments.

  Raises:
    InputError: if a file that the fusion needs cannot be read.
  """

  def __init__(self, trained: Trained, method: str, segments_only: bool = False):
    super().__init__()
    model, fuser = trained.model, trained.fuser([method])
    # Only the variables are saved. A Keras model would add the functions of each layer.
    self.variables_of_model = model.variables
    self._task = trained.config.task
    self.output_size = list(self._task.validation_data.output_size)
    self._category_ids = trained.categories.id_of_label_table()
    self._method = method
    self._segments_only = segments_only
    self._is_square = self.output_size[0] == self.output_size[1]
    self._side = max(geometry.canvas_of(self.output_size, portrait=False)[1])
    dtype = DTYPES[self._task.model.resizing]
    # Of the functions of the graph: a batch of `Prepared`, and the size of its maps.
    self._specs = (
      Prepared(
        tf.TensorSpec([None, self._side, self._side, 3], dtype), tf.TensorSpec([None, 4, 2])
      ),
      tf.TensorSpec([2], tf.int32),
    )

    def batch_of(
      images: tf.Tensor,
      image_info: tf.Tensor,
      canvas_size: tf.Tensor,
      whole_size: Sequence[int] | None,
    ) -> FusionBatch:
      outputs = model(images, image_info)
      return fuser.batch(outputs, image_info, canvas_size, whole_size=whole_size)

    self._batch_of = batch_of
    # Functions that are attributes would all be traced and saved.
    self._of_orientation = functools.cache(self._make_function)

  def segment(self, images: tf.Tensor, image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
    """Segments images of any sizes, on a canvas that holds the largest.

    Args:
      images: [B, H, W, 3] uint8 RGB, each image at the top left, with any padding.
      image_shapes: [B, 2] int32, [height, width] of each image, from 1 to H and W.
    """

    def prepare(inputs: tuple[tf.Tensor, tf.Tensor]) -> Prepared:
      image, (height, width) = inputs[0], tf.unstack(inputs[1])
      return self.prepare(image[:height, :width])

    dtype = DTYPES[self._task.model.resizing]
    prepared = tf.map_fn(
      prepare, (images, image_shapes), fn_output_signature=Prepared(dtype, tf.float32)
    )
    return self.segment_prepared(prepared, tf.shape(images)[1:3])

  def prepare(self, image: tf.Tensor) -> Prepared:
    """[h, w, 3] uint8 RGB -> what the network sees of it."""
    height, width = tf.unstack(tf.shape(image)[:2])

    def of_orientation(portrait: bool) -> Prepared:
      example = network_input(image, self._task, portrait)
      padded = tf.image.pad_to_bounding_box(example['image'], 0, 0, self._side, self._side)
      return Prepared(padded, example['image_info'])

    if self._is_square:
      return of_orientation(False)
    return tf.cond(height > width, lambda: of_orientation(True), lambda: of_orientation(False))

  def segment_prepared(
    self, prepared: Prepared, canvas_size: tf.Tensor | None = None
  ) -> dict[str, tf.Tensor]:
    """Segments prepared images.

    Args:
      prepared: a batch.
      canvas_size: [2] int32, [height, width] of the maps; None takes the largest of the images.
    """
    if canvas_size is None:
      canvas_size = geometry.largest_original(prepared.image_info)
    if self._task.validation_data.tight_padding:
      return self._segment_each(prepared, canvas_size)
    if self._is_square:
      return self._of_orientation(0)(prepared, canvas_size)
    # The network sees portrait and landscape images on canvases of different shapes.
    height, width = tf.unstack(geometry.original_size(prepared.image_info), axis=1)
    indices = tf.dynamic_partition(tf.range(tf.size(height)), tf.cast(height > width, tf.int32), 2)
    oriented = [self._segment_part(prepared, canvas_size, i, p) for p, i in enumerate(indices)]
    return {
      name: tf.dynamic_stitch(indices, [results[name] for results in oriented])
      for name in oriented[0]
    }

  def segment_fixed(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
    """Segments one image on a canvas of a fixed size; all shapes are static.

    Args:
      image: [1, H, W, 3] uint8 RGB as `letterbox.letterbox` makes it, H and W static.
    """
    canvas = FixedCanvas(self._task, image.shape[1:3].as_list())
    results = self._results(
      *canvas.network_input(image), tf.constant(canvas.size), whole_size=canvas.whole_size
    )
    return without_bool(results)

  def _segment_each(self, prepared: Prepared, canvas_size: tf.Tensor) -> dict[str, tf.Tensor]:
    """Segments images one by one, each with its own padding."""

    def of_image(prepared: Prepared, canvas_size: tf.Tensor) -> dict[str, tf.Tensor]:
      height, width = tf.unstack(geometry.tight_canvas(prepared.image_info))
      image = prepared.image[None, :height, :width]
      return self._results(image, prepared.image_info[None], canvas_size)

    prepared_specs, canvas_spec = self._specs
    spec = tf.nest.map_structure(
      lambda spec: tf.TensorSpec(spec.shape[1:], spec.dtype), prepared_specs
    )
    function = tf.function(of_image, [spec, canvas_spec], autograph=False)
    outputs = {
      name: tf.TensorSpec(spec.shape[1:], spec.dtype)
      for name, spec in function.get_concrete_function().structured_outputs.items()
    }
    return tf.map_fn(
      lambda one: {name: values[0] for name, values in function(one, canvas_size).items()},
      prepared,
      fn_output_signature=outputs,
      parallel_iterations=1,
    )

  def _make_function(self, portrait: int) -> tf.types.experimental.GenericFunction:
    """Segments prepared images of one orientation: a function of the graph, shared by all calls."""
    _, (height, width) = geometry.canvas_of(self.output_size, bool(portrait))

    def segment(prepared: Prepared, canvas_size: tf.Tensor) -> dict[str, tf.Tensor]:
      return self._results(prepared.image[:, :height, :width], prepared.image_info, canvas_size)

    return tf.function(segment, input_signature=self._specs, autograph=False)

  def _segment_part(
    self, prepared: Prepared, canvas_size: tf.Tensor, indices: tf.Tensor, portrait: int
  ) -> dict[str, tf.Tensor]:
    """Segments the images of one orientation; there may be none."""
    function = self._of_orientation(portrait)

    def some() -> dict[str, tf.Tensor]:
      part = tf.nest.map_structure(lambda values: tf.gather(values, indices), prepared)
      return function(part, canvas_size)

    def none() -> dict[str, tf.Tensor]:
      canvas = tf.unstack(canvas_size)
      return {
        name: tf.zeros([0, *(canvas if name in _MAPS else spec.shape[1:])], spec.dtype)
        for name, spec in function.get_concrete_function().structured_outputs.items()
      }

    return tf.cond(tf.size(indices) > 0, some, none)

  def _results(
    self,
    images: tf.Tensor,
    image_info: tf.Tensor,
    canvas_size: tf.Tensor,
    whole_size: Sequence[int] | None = None,
  ) -> dict[str, tf.Tensor]:
    batch = self._batch_of(images, image_info, canvas_size, whole_size)
    instances, ids = batch.instances, tf.constant(self._category_ids)
    results = segments_of(batch, fuse(batch, self._method), ids)
    if self._segments_only:
      return results
    return {
      **results,
      'num_detections': batch.outputs['num_detections'],
      'detection_boxes': geometry.boxes_to_original(instances.boxes, image_info),
      'detection_scores': instances.scores,
      'detection_classes': tf.gather(ids, instances.classes),
      'detection_masks': instances.masks,
      'ranking_scores': batch.ranking.scores,
    }


def without_bool(results: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """The same with uint8 instead of bool, which LiteRT does not take in a browser."""
  return {
    name: tf.cast(values, tf.uint8) if values.dtype == tf.bool else values
    for name, values in results.items()
  }


def segments_of(
  batch: FusionBatch, maps: Panoptic, category_ids: tf.Tensor
) -> dict[str, tf.Tensor]:
  """The masks, `image_shape` and the segments, as `PanopticModule` has them.

  Args:
    batch: that was fused.
    maps: of it.
    category_ids: [1 + T + S] int32, the dataset's id of each label.
  """
  return {
    'panoptic_category_mask': tf.gather(category_ids, maps.category_mask),
    'panoptic_instance_mask': maps.instance_mask,
    'image_shape': geometry.original_size(batch.canvas.image_info),
    **segment_table(
      maps,
      batch.instances.scores,
      batch.instances.classes,
      batch.stuff_scores(maps),
      category_ids,
      batch.fuser.num_things,
    ),
  }
