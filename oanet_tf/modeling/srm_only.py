"""The spatial ranking module without a detector: its instances are the annotated objects."""

# B images, H, W network input, M objects, S mask side, T thing and S stuff categories, h, w maps.

import tensorflow as tf
import tf_keras

from oanet_tf.modeling.spatial_ranking import InstanceRanker


class SRMOnly(tf_keras.Model):
  """Trains on true instances as `OANet` does, and in inference ranks them like detections.

  Its variables are in `spatial_ranking`, as `OANet`'s are, so that a checkpoint of the one starts
  the other.
  """

  def __init__(self, *, ranker: InstanceRanker, num_things: int, num_stuff: int):
    """Takes the ranker of instances, T and S."""
    super().__init__(name='srm_only')
    self.spatial_ranking = ranker.module
    self.num_things = num_things
    self.num_stuff = num_stuff
    self._ranker = ranker

  def call(
    self,
    images: tf.Tensor,
    image_info: tf.Tensor,
    labels: dict[str, tf.Tensor],
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """The forward pass, with the interface of `OANet`.

    Args:
      images: [B, H, W, 3] uint8, of which only the size matters; H and W static.
      image_info: is not needed.
      labels: in training, `data.preprocess.srm_training_steps`' examples; in inference,
        `data.preprocess.srm_evaluation_steps`', whose objects then are the detections.
      training: raw predictions for the loss, or detections.

    Returns:
      In training `instance_tensor` and `ranking_logits` [B, h, w, T].
      In inference `detection_boxes`, `detection_scores`, `detection_classes`, `detection_masks`,
      `ranking_map` and `ranking_scores` as of `OANet`, and `stuff_logits` [B, h, w, T + S]: 1 for
      the true label, else 0, also where that is void.
    """
    del image_info
    if training:
      return self._ranker.in_training(images, labels)
    detections = {
      'detection_boxes': labels['gt_boxes'],
      'detection_scores': labels['gt_scores'],
      'detection_classes': labels['gt_classes'],
      'detection_masks': labels['gt_masks'],
    }
    true_labels = tf.one_hot(labels['category_labels'] - 1, self.num_things + self.num_stuff)
    ranking = self._ranker.in_inference(images, detections)
    return {**detections, **ranking, 'stuff_logits': true_labels}
