"""Small evaluations as `evaluator.evaluate` writes them, with details, made without a network."""

import json
import types

import numpy as np

from oanet_tf.data.panoptic_map import segments_of_masks
from oanet_tf.evaluation.coco_results import PanopticResultsWriter
from oanet_tf.evaluation.details import details_writer
from oanet_tf.evaluation.panoptic_quality import PanopticQuality
from oanet_tf.evaluation.ranking_map import RankingMap
from tests.segments import segments_of_ids

HEIGHT, WIDTH, INPUT = 48, 64, 96
PERSON, TIE, SKY, GRASS = 7, 31, 92, 200
FUSIONS = {'srm': 'ranking_scores', 'heuristic': 'detection_scores'}


def rectangle(y1, x1, y2, x2):
  mask = np.zeros([HEIGHT, WIDTH], bool)
  mask[y1:y2, x1:x2] = True
  return mask


def merge(masks, scores, overlap_threshold=0.5):
  """[H, W]: 1 + the index of the instance on top, as `merge_instances` of the fusion."""
  canvas, used = np.zeros([HEIGHT, WIDTH], int), np.zeros([HEIGHT, WIDTH], bool)
  for index in np.argsort(-scores, kind='stable'):
    mask = masks[index]
    if mask.any() and (mask & used).sum() / mask.sum() <= overlap_threshold:
      canvas[mask & ~used] = index + 1
      used |= mask
  return canvas


def layered(segments):
  """Of (category id, mask)s, the last on top, the first everywhere."""
  ids = np.zeros([HEIGHT, WIDTH], np.int32)
  for number, (_, mask) in enumerate(segments, start=1):
    ids[mask] = 1000 * number
  return segments_of_ids(
    ids, {1000 * n: category_id for n, (category_id, _) in enumerate(segments, start=1)}
  )


def evaluated_image(number, categories):
  """A tie on a person, before sky; detected as such, but with a higher score for the person.

  Odd images have the tie's ranking right; in the third, sixth… it does not lie on the person.
  """
  rng = np.random.default_rng(number)
  y, x = rng.integers(0, 6, 2)
  person, tie = rectangle(4 + y, 8 + x, 40 + y, 34 + x), rectangle(14 + y, 18 + x, 34 + y, 24 + x)
  if number % 3 == 0:
    tie = np.roll(tie, 22, axis=1)
  sky = (SKY, np.ones([HEIGHT, WIDTH], bool))
  hidden = [(TIE, tie)] if number % 2 else []
  truth = layered([sky, (PERSON, person), *hidden])
  detections = {
    'detection_boxes': np.zeros([4, 4], np.float32),
    'detection_scores': np.array([0.997, 0.662, 0.3, 0.0], np.float32),
    'detection_classes': np.array([1, 2, 1, 0]),
    'ranking_scores': np.array([0.325, 0.878, 0.0, 0.0], np.float32),
  }
  predictions, instance_masks = {}, {}
  for fusion, score in FUSIONS.items():
    instances = merge([person, tie], detections[score][:2])
    labels = np.select([instances == 1, instances == 2], [1, 2], categories.label(SKY))
    instance_masks[fusion] = instances
    predictions[fusion] = segments_of_masks(labels, instances, categories)
  cells = [INPUT // 4, INPUT // 4]
  ranking_map = RankingMap(np.ones(cells, np.int32), np.full(cells, 0.7, np.float32))
  picture = np.zeros([INPUT, INPUT, 3], np.uint8)
  picture[: 72 * HEIGHT // 48, :96] = 40 * number % 256
  return types.SimpleNamespace(
    image_id=number,
    file_name=f'{number}.jpg',
    ground_truth=truth,
    predictions=predictions,
    instance_masks=instance_masks,
    detections=detections,
    image=picture,
    # Scaled by 1.5 to 72 × 96, the rest of the input is padding.
    image_info=np.array([[HEIGHT, WIDTH], [72, 96], [1.5, 1.5], [0, 0]], np.float32),
    ranking_map=ranking_map,
  )


def write_evaluation(folder, categories, num_images=6, details=True):
  """What an evaluation leaves in its folder; returns the images."""
  images = [evaluated_image(number, categories) for number in range(1, num_images + 1)]
  results = {}
  for fusion in FUSIONS:
    quality = PanopticQuality(categories)
    with PanopticResultsWriter(folder, fusion, categories) as writer:
      for image in images:
        quality.update(image.ground_truth, image.predictions[fusion])
        writer.write(image.image_id, image.file_name, image.predictions[fusion])
    results[fusion] = quality.result()
  (folder / 'results.json').write_text(json.dumps(results))
  if details:
    with details_writer(folder, categories, score_threshold=0.5) as write:
      for image in images:
        write(image)
  return images
