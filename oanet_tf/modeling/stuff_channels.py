"""What the channels of the stuff branch's logits stand for."""

# T thing categories, S stuff categories.

from typing import NamedTuple

import tensorflow as tf


class StuffChannels(NamedTuple):
  """The channels of stuff logits: first void, then things, then stuff.

  Attributes:
    void: 1 if void is a class of its own, as in the Model Garden, else 0.
    things: T; or 1, which stands for any thing; or 0 where things are not supervised.
    stuff: S.
    num_things: T.
  """

  void: int
  things: int
  stuff: int
  num_things: int

  @classmethod
  def of_all(cls, num_things: int, num_stuff: int) -> 'StuffChannels':
    """One channel for each category."""
    return cls(void=0, things=num_things, stuff=num_stuff, num_things=num_things)

  @property
  def total(self) -> int:
    """Number of channels."""
    return self.void + self.things + self.stuff

  def of_labels(self, labels: tf.Tensor) -> tf.Tensor:
    """The channel that is right for each label.

    Args:
      labels: int32 in [0, T + S], 0 for void.

    Returns:
      int32 in [-1, total), -1 where there is none.
    """
    first_stuff = self.void + self.things
    channels = first_stuff + labels - (1 + self.num_things)
    if self.things < self.num_things:
      any_thing = self.void if self.things else -1
      channels = tf.where(labels <= self.num_things, any_thing, channels)
    return tf.where(labels == 0, 0 if self.void else -1, channels)

  def stuff_logits(self, logits: tf.Tensor) -> tf.Tensor:
    """[..., S], of [..., total]."""
    return logits[..., self.void + self.things :]

  def thing_logits(self, logits: tf.Tensor) -> tf.Tensor:
    """[..., T], of [..., total]; all the same where one channel stands for any thing."""
    things = logits[..., self.void : self.void + self.things]
    return things if self.things == self.num_things else tf.repeat(things, self.num_things, axis=-1)
