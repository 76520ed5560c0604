"""The modules of commands whose names the package gives to functions."""

import importlib

convert = importlib.import_module('oanet_tf.convert')
evaluate = importlib.import_module('oanet_tf.evaluate')
export = importlib.import_module('oanet_tf.export')
train = importlib.import_module('oanet_tf.train')
