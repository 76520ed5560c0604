"""The modules of commands whose names the package gives to functions, and how they are run."""

import importlib
import subprocess
import sys

convert = importlib.import_module('oanet_tf.convert')
evaluate = importlib.import_module('oanet_tf.evaluate')
export = importlib.import_module('oanet_tf.export')
train = importlib.import_module('oanet_tf.train')

WITHOUT_TENSORFLOW = """
import runpy, sys
module, sys.argv = sys.argv[1], sys.argv[1:]
try:
  runpy.run_module(module, run_name='__main__')
finally:
  loaded = {'tensorflow', 'tf_keras', 'official'} & set(sys.modules)
  assert not loaded, loaded
"""


def run_without_tensorflow(module, *arguments):
  """Runs a command in a new process, in which it may load none of the large packages."""
  command = [sys.executable, '-c', WITHOUT_TENSORFLOW, module, *map(str, arguments)]
  return subprocess.run(command, capture_output=True, text=True)
