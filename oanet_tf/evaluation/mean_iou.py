"""Mean intersection over union of the stuff branch."""

# H, W height and width of an image, S stuff categories.

import numpy as np

from oanet_tf.data.categories import PanopticCategories
from oanet_tf.errors import InputError


class MeanIoU:
  """Counts, image by image, what is predicted where the ground truth is stuff.

  Attributes:
    confusion: [S, 1 + S] int64, pixels of each true stuff category by predicted one, in the order
      of their labels; column 0 is for predictions that are not stuff. The sum of several
      processes' confusions is that of all their images.
  """

  def __init__(self, categories: PanopticCategories):
    self._categories = categories
    self.confusion = np.zeros([categories.num_stuff, 1 + categories.num_stuff], np.int64)

  def update(self, ground_truth: np.ndarray, prediction: np.ndarray) -> None:
    """Adds one image.

    Args:
      ground_truth: [H, W] int labels in [0, T + S].
      prediction: [H, W] int labels in [0, T + S].

    Raises:
      InputError: if the sizes differ.
    """
    if ground_truth.shape != prediction.shape:
      raise InputError(
        f'the ground truth is {ground_truth.shape} pixels (height, width) but the prediction '
        f'{prediction.shape}'
      )
    things = self._categories.num_things
    is_stuff = ground_truth > things
    rows = ground_truth[is_stuff].astype(np.int64) - things - 1
    columns = np.maximum(prediction[is_stuff].astype(np.int64) - things, 0)
    shape = self.confusion.shape
    counts = np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1])
    self.confusion += counts.reshape(shape)

  def result(self) -> dict:
    """Intersection over union, as plain numbers in [0, 1].

    Returns:
      {'mean_iou': over the categories that occur in ground truth or prediction, as in
      `tf_keras.metrics.MeanIoU`, or 0.0 if none does; 'per_class': {dataset category id: IoU} of
      those that occur}.
    """
    stuff = self.confusion[:, 1:]
    intersection = np.diag(stuff)
    union = self.confusion.sum(axis=1) + stuff.sum(axis=0) - intersection
    categories = list(self._categories)[self._categories.num_things :]
    per_class = {
      category.id: float(pixels / area)
      for category, pixels, area in zip(categories, intersection, union, strict=True)
      if area
    }
    mean = sum(per_class.values()) / len(per_class) if per_class else 0.0
    return {'mean_iou': mean, 'per_class': per_class}
