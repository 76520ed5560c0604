"""The way in from Python: `load` opens a network, which turns images into results."""

import pathlib
from collections.abc import Iterable, Iterator

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError
from oanet_tf.files import FilePath
from oanet_tf.prediction.inputs import ImageLike, NamedImage, batches_of, named_images
from oanet_tf.prediction.predictor import Predictor, open_predictor
from oanet_tf.prediction.result import Result

# Comes with the package; scripts/make_shipped_network.sh makes it.
SHIPPED_MODEL = pathlib.Path(__file__).with_name('shipped') / 'occluded_scenes.tflite'
SHIPPED_PICTURES = SHIPPED_MODEL.with_name('pictures')


def load(
  model: FilePath | None = None, *, fusion: str | None = None, params_override: str = ''
) -> 'Model':
  """Opens a trained network.

  Args:
    model: a model folder, a SavedModel, a folder with its versions, or a `.tflite` file of
      `oanet_tf.export`. None takes the small network that comes with the package, which knows only
      the generated pictures of OccludedScenes.
    fusion: for a model folder, how segments are merged: 'srm', 'heuristic', 'class_prior',
      'pairwise' or 'upsnet'; None takes what its configuration says.
    params_override: for a model folder, changes to its configuration, as `a.b=1,c.d=[2,3]`.

  Raises:
    InputError: if there is no such model, it is damaged, or it does not fit the settings; or if a
      package that it needs is not installed.
  """
  return Model(open_predictor(SHIPPED_MODEL if model is None else model, fusion, params_override))


class Model:
  """A trained network; `load` makes one. Several threads may use it at once.

  Attributes:
    categories: that it knows.
  """

  def __init__(self, predictor: Predictor):
    self._predictor = predictor
    self.categories: PanopticCategories = predictor.categories

  def __call__(
    self, images: ImageLike | Iterable[ImageLike], *, batch_size: int = 4
  ) -> Iterator[Result]:
    """Segments images in batches, as their results are asked for.

    Args:
      images: a file, a folder, an RGB array [H, W, 3] of uint8 or a PIL image; or many of them,
        which may be a generator.
      batch_size: most images at a time, of which more than 16 make several batches. With 1, each
        result comes before the next image is read.

    Yields:
      The result of each image, in their order.

    Raises:
      InputError: if something is no image, or is too large for the model; it says which.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
      raise InputError(f'batch_size is a whole number from 1, not {batch_size!r}')
    return self.results(named_images(images), batch_size)

  def results(self, images: Iterable[NamedImage], batch_size: int) -> Iterator[Result]:
    """As `__call__`, with names of one's own.

    Args:
      images: names, and [H, W, 3] uint8 RGB.
      batch_size: most images at a time.
    """
    for batch in batches_of(map(self._fitting, images), batch_size):
      segmentations = self._predictor.segment([image for _, image in batch])
      for (name, image), segments in zip(batch, segmentations, strict=True):
        yield Result(name, image, segments, self.categories)

  def check_size(self, name: object, height: int, width: int) -> None:
    """Raises `InputError`, which names `name`, if an image is too large for the model."""
    most, side = self._predictor.max_pixels, self._predictor.max_side
    if most and side and (height * width > most or max(height, width) > side):
      raise InputError(
        f'{name}: has {height} x {width} pixels; the model takes at most {most}, and {side} along '
        'a side'
      )

  def _fitting(self, named: NamedImage) -> NamedImage:
    name, image = named
    self.check_size(name, *image.shape[:2])
    return named
