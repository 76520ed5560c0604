"""The scripts that tests take functions from."""

import importlib.util
import pathlib
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / 'scripts'


def _load(name):
  spec = importlib.util.spec_from_file_location(name, SCRIPTS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


benchmark_fusion = _load('benchmark_fusion')
# The next one imports it, as a script beside it can.
sys.modules['benchmark_model'] = benchmark_model = _load('benchmark_model')
benchmark_scaling = _load('benchmark_scaling')
benchmark_serving = _load('benchmark_serving')
benchmark_tflite = _load('benchmark_tflite')
draw_architecture = _load('draw_architecture')
serving_client = _load('serving_client')
