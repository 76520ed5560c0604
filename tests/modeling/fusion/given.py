"""Network outputs made by hand, for tests of the fusions."""

import numpy as np
import tensorflow as tf

from oanet_tf.config.definitions import Fusion
from oanet_tf.modeling.fusion import fuser, methods
from oanet_tf.modeling.spatial_ranking import Ranking, SpatialRankingModule
from oanet_tf.modeling.stuff_channels import StuffChannels

NUM_THINGS, NUM_STUFF = 3, 2
ALL_CHANNELS = StuffChannels.of_all(NUM_THINGS, NUM_STUFF)
GRASS, SKY = NUM_THINGS + 1, NUM_THINGS + 2

# The paper's Figure 7, with its scores.
TIE_ON_PERSON = {
  'boxes': [[0, 0, 20, 20], [5, 5, 10, 8]],
  'classes': [1, 2],
  'scores': [0.997, 0.662],
  'ranking': [0.325, 0.878],
}


def image_info(*sizes, scale=1.0):
  return tf.constant(
    [[size, np.multiply(size, scale), [scale, scale], [0, 0]] for size in sizes], tf.float32
  )


def stuff_logits(labels):
  """[h, w] labels -> [h, w, T + S]: 10 for the label, 0 for the others."""
  return 10.0 * np.eye(NUM_THINGS + NUM_STUFF)[np.asarray(labels) - 1]


def outputs(boxes, classes, scores, ranking=None, stuff=None, side=32, masks=None):
  """One image; masks are solid unless given; `stuff` is a label map at stride 1."""
  stuff = np.full((side, side), GRASS) if stuff is None else stuff
  count = len(boxes)
  masks = np.ones((count, 8, 8)) if masks is None else masks
  return {
    'detection_boxes': tf.reshape(tf.constant(boxes, tf.float32), [1, count, 4]),
    'detection_classes': tf.reshape(tf.constant(classes, tf.int32), [1, count]),
    'detection_scores': tf.reshape(tf.constant(scores, tf.float32), [1, count]),
    'ranking_scores': tf.reshape(tf.constant(ranking or scores, tf.float32), [1, count]),
    'detection_masks': tf.constant(np.asarray(masks)[None], tf.float32),
    'stuff_logits': tf.constant(stuff_logits(stuff)[None], tf.float32),
  }


def batch(
  given,
  info=None,
  size=(32, 32),
  stride=1,
  class_prior=None,
  occlusion_head=None,
  ground_truth=None,
  channels=ALL_CHANNELS,
  **settings,
):
  """A fusion's input, ranked by `ranking_scores` where `given` has them."""
  made = fuser.Fuser(
    settings=Fusion(**{'stuff_area_limit': 0, **settings}),
    num_things=NUM_THINGS,
    stuff_channels=channels,
    stuff_stride=stride,
    ranking_module=SpatialRankingModule(num_things=NUM_THINGS, stride=stride),
    class_prior=class_prior,
    occlusion_head=occlusion_head,
  ).batch(given, image_info(size) if info is None else info, size, ground_truth)
  if 'ranking_scores' in given:
    made.ranking = Ranking(None, given['ranking_scores'])
  return made


def fuse(given, method='heuristic', **options):
  """-> category and instance mask of the first image."""
  result = methods.fuse(batch(given, **options), method)
  return result.category_mask.numpy()[0], result.instance_mask.numpy()[0]


def ground_truth_of(*segments, side=32):
  """Rectangles `(label, y1, x1, y2, x2)`, the later ones on top."""
  number, labels = np.zeros((2, 1, side, side), np.int32)
  for k, (label, y1, x1, y2, x2) in enumerate(segments, start=1):
    number[0, y1:y2, x1:x2], labels[0, y1:y2, x1:x2] = k, label
  return fuser.GroundTruth(tf.constant(number), tf.constant(labels))
