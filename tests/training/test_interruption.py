import os
import signal

import pytest

from oanet_tf.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted(number):
  before = signal.getsignal(number)
  with Interruption() as interruption:
    assert interruption.received is None
    os.kill(os.getpid(), number)
    assert interruption.received == number
    # The second one is not held back.
    assert signal.getsignal(number) == before
  assert signal.getsignal(number) == before


def test_the_second_sigint_is_a_keyboard_interrupt():
  with pytest.raises(KeyboardInterrupt), Interruption():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)


def test_where_nothing_is_to_be_saved_a_signal_acts_at_once():
  with Interruption() as interruption:
    with pytest.raises(Interrupted), interruption.at_once():
      os.kill(os.getpid(), signal.SIGTERM)
    assert interruption.received == signal.SIGTERM


def test_without_a_signal_the_handlers_are_put_back():
  before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  with Interruption():
    pass
  assert before == [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]


def test_a_signal_of_just_before_acts_there_too():
  with Interruption() as interruption:
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(Interrupted), interruption.at_once():
      pytest.fail('has gone in')
