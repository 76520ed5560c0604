import os
import signal
import threading

import pytest
import tensorflow as tf

from oanet_tf.data.interruptible import interruptible


def test_elements_are_taken_only_when_they_are_asked_for():
  taken = []

  def elements():
    for number in range(5):
      taken.append(number)
      yield number

  numbers = interruptible(elements())
  assert not taken
  assert [next(numbers), next(numbers)] == [0, 1]
  assert taken == [0, 1]
  assert list(numbers) == [2, 3, 4]
  assert next(numbers, None) is None


def test_nothing_and_very_many():
  assert list(interruptible([])) == []
  assert sum(interruptible(range(20_000))) == sum(range(20_000))


@pytest.mark.parametrize('error', [ValueError('bad'), KeyboardInterrupt(), StopIteration(1)])
def test_errors_are_raised_where_the_element_is_wanted(error):
  class Source:
    def __init__(self):
      self.is_first = True

    def __iter__(self):
      return self

    def __next__(self):
      if self.is_first:
        self.is_first = False
        return 'first'
      raise error

  elements = interruptible(Source())
  assert next(elements) == 'first'
  # The end is no error.
  expected = StopIteration if isinstance(error, StopIteration) else type(error)
  with pytest.raises(expected):
    next(elements)


def test_the_thread_ends_with_the_iterator():
  before = threading.active_count()
  elements = interruptible(range(3))
  next(elements)
  (thread,) = [one for one in threading.enumerate() if one.name == 'waiting for data']
  elements.close()
  assert not thread.is_alive()
  assert threading.active_count() == before


class Alarm(Exception):
  pass


def test_a_signal_gets_through_while_tensorflow_reads_a_file_that_hangs(tmp_path):
  shard = tmp_path / 'hangs.tfrecord'
  os.mkfifo(shard)

  def ring(*_):
    raise Alarm

  previous = signal.signal(signal.SIGALRM, ring)
  signal.setitimer(signal.ITIMER_REAL, 1)
  try:
    with pytest.raises(Alarm):
      next(interruptible(tf.data.TFRecordDataset(str(shard))))
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)
    # Lets TensorFlow's thread end.
    os.close(os.open(shard, os.O_WRONLY))
