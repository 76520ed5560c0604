"""The spatial ranking module without a detector: its instances are the annotated objects."""

# B images, H, W network input, M objects, S mask side, T thing and S stuff categories, h, w maps.

import tensorflow as tf
import tf_keras

from oanet_tf.modeling.spatial_ranking import SpatialRankingModule, rank_ground_truth


class SRMOnly(tf_keras.Model):
  """Trains on true instances as `OANet` does, and in inference ranks them like detections.

  Its variables are in `spatial_ranking`, as `OANet`'s are, so that a checkpoint of the one starts
  the other.
  """

  def __init__(self, *, spatial_ranking: SpatialRankingModule, num_things: int, num_stuff: int):
    """Takes the module, T and S."""
    super().__init__(name='srm_only')
    self.spatial_ranking = spatial_ranking
    self.num_things = num_things
    self.num_stuff = num_stuff

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
      In inference `detection_boxes`, `detection_scores`, `detection_classes` and `detection_masks`
      as of `OANet`, and `stuff_logits` [B, h, w, T + S]: 1 for the true label, else 0, also where
      that is void.
    """
    del image_info
    if training:
      return rank_ground_truth(self.spatial_ranking, labels, images.shape[1:3])
    num_labels = self.num_things + self.num_stuff
    return {
      'detection_boxes': labels['gt_boxes'],
      'detection_scores': labels['gt_scores'],
      'detection_classes': labels['gt_classes'],
      'detection_masks': labels['gt_masks'],
      'stuff_logits': tf.one_hot(labels['category_labels'] - 1, num_labels),
    }
