"""The spatial ranking module without a detector; its instances are the annotated objects."""

# B images, H, W network input, M objects, S mask side, T thing and S stuff categories, h, w maps.

import tensorflow as tf
import tf_keras

from oanet_tf.data.geometry import height_and_width
from oanet_tf.modeling.spatial_ranking import SpatialRankingModule, rank_ground_truth, true_masks
from oanet_tf.modeling.stuff_channels import StuffChannels

# A logit whose softmax is 1; a power of 2, which changes no comparison.
_CERTAIN = 64.0


class SRMOnly(tf_keras.Model):
  """Trains on the annotated instances, as `OANet` does, and in inference ranks them as detections.

  Its variables are in `spatial_ranking`, as in `OANet`, so a checkpoint of one can initialize the
  other.
  """

  def __init__(self, spatial_ranking: SpatialRankingModule, num_things: int, num_stuff: int):
    super().__init__(name='srm_only')
    self.spatial_ranking = spatial_ranking
    self.num_things = num_things
    self.stuff_channels = StuffChannels.of_all(num_things, num_stuff)

  def call(
    self,
    images: tf.Tensor,
    image_info: tf.Tensor,
    labels: dict[str, tf.Tensor],
    training: bool = False,
  ) -> dict[str, tf.Tensor]:
    """The forward pass, with the interface of `OANet`.

    Args:
      images: [B, H, W, 3] uint8, used only for its size; H and W static.
      image_info: not used.
      labels: in training, the examples of `data.preprocess.srm_training_steps`; in inference, those
        of `data.preprocess.srm_evaluation_steps`, whose objects are the detections.
      training: whether to return raw predictions for the loss, or detections.

    Returns:
      In training `instance_tensor` and `ranking_logits` [B, h, w, T].
      In inference `detection_boxes`, `detection_scores`, `detection_classes` and `detection_masks`
      as of `OANet`, and `stuff_logits` [B, h, w, T + S], certain of the ground truth, all 0 at
      void.
    """
    del image_info
    if training:
      masks = true_masks(labels, height_and_width(images), self.spatial_ranking.stride)
      return rank_ground_truth(self.spatial_ranking, masks, labels['gt_classes'])
    return {
      **{
        f'detection_{key}': labels[f'gt_{key}'] for key in ('boxes', 'scores', 'classes', 'masks')
      },
      'stuff_logits': tf.one_hot(
        labels['category_labels'] - 1, self.stuff_channels.total, on_value=_CERTAIN
      ),
    }
