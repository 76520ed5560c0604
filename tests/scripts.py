"""The scripts that tests take functions from."""

import importlib
import pathlib
import sys

SCRIPTS = pathlib.Path(__file__).resolve().parents[1] / 'scripts'
sys.path.append(str(SCRIPTS))

benchmark_convert = importlib.import_module('benchmark_convert')
benchmark_fusion = importlib.import_module('benchmark_fusion')
benchmark_model = importlib.import_module('benchmark_model')
benchmark_model_tensorflow = importlib.import_module('benchmark_model_tensorflow')
benchmark_pq = importlib.import_module('benchmark_pq')
benchmark_scaling = importlib.import_module('benchmark_scaling')
benchmark_serving = importlib.import_module('benchmark_serving')
benchmark_tflite = importlib.import_module('benchmark_tflite')
benchmark_start = importlib.import_module('benchmark_start')
check_gpu = importlib.import_module('check_gpu')
check_gpu_verdict = importlib.import_module('check_gpu_verdict')
check_gpu_worker = importlib.import_module('check_gpu_worker')
compare_orders = importlib.import_module('compare_orders')
draw_architecture = importlib.import_module('draw_architecture')
