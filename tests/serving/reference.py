"""One image through network and fusion, not padded to a batch: what every export must give."""

import numpy as np
import tensorflow as tf

from oanet_tf.data.preprocess import network_input
from oanet_tf.modeling.fusion.methods import fuse


def image_predictor(trained, method):
  """[H, W, 3] uint8 of any size -> the network's outputs and the maps.

  The outputs also have `ranking_scores` and `stuff_scores`.
  """
  fuser, output_size = trained.fuser([method]), trained.config.task.validation_data.output_size

  @tf.function(autograph=False)
  def run(images, info, size):
    batch = fuser.batch(trained.model(images, info), info, size)
    maps = fuse(batch, method)
    scores = {'ranking_scores': batch.ranking.scores, 'stuff_scores': batch.stuff_scores(maps)}
    return {**batch.outputs, **scores}, maps

  def predict(image):
    portrait = output_size[0] != output_size[1] and image.shape[0] > image.shape[1]
    example = network_input(tf.constant(image), trained.config.task, portrait)
    size = tf.constant(np.array(image.shape[:2], np.int32))
    return run(example['image'][None], example['image_info'][None], size)

  return predict
