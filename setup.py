"""Installs oanet_tf. `pip install .` for use, `pip install -e .[test]` for work on it."""

import pathlib

from setuptools import find_packages, setup

TENSORFLOW = '>=2.20,<2.21'
# Protos of TensorFlow Serving, for warm-up requests and clients. Each needs its TensorFlow.
SERVING = 'tensorflow-serving-api>=2.20,<2.21'
# Results as its `Detections`. Since 0.31 it does not need OpenCV.
SUPERVISION = 'supervision>=0.31,<1'
# Quantizes TFLite files to 8 bits.
QUANTIZER = 'ai-edge-quantizer>=0.10,<0.11'
# Reads and writes videos.
VIDEO = 'av>=16,<19'

setup(
  name='oanet_tf',
  version='0.1.0',
  description='OANet panoptic segmentation (Liu et al., CVPR 2019) for TensorFlow 2',
  long_description=pathlib.Path(__file__).with_name('README.md').read_text(),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE'],
  packages=find_packages(include=['oanet_tf', 'oanet_tf.*']),
  package_data={
    'oanet_tf': [
      'py.typed',
      'config/defaults/*.yaml',
      'data/coco_categories.json',
      'prediction/shipped/*',
      'prediction/shipped/pictures/*',
      'reporting/report.*',
      'serving/web_page/*',
    ]
  },
  entry_points={'console_scripts': ['oanet = oanet_tf.__main__:run']},
  python_requires='>=3.10,<3.14',
  install_requires=[
    f'tensorflow{TENSORFLOW}',
    'tf_keras>=2.20,<2.21',
    'tf-models-official>=2.20,<2.21',
    'pycocotools>=2.0.7,<3',
    'ai-edge-litert>=2.1,<3',
    'flatbuffers>=24.3',
    'h5py>=3.8,<4',
    'kornia-rs>=0.2,<0.3',
    'ml_dtypes>=0.5,<1',
    'matplotlib>=3.7,<4',
    'numpy>=1.26,<3',
    'pillow>=10.4',
    'pyyaml>=6,<7',
    'scipy>=1.11,<2',
    'tqdm>=4.66,<5',
  ],
  extras_require={
    # CUDA and cuDNN, which TensorFlow needs to use NVIDIA GPUs.
    'gpu': [f'tensorflow[and-cuda]{TENSORFLOW}'],
    'serving': [SERVING],
    # `Result.to_supervision`.
    'supervision': [SUPERVISION],
    'tflite': [QUANTIZER],
    'video': [VIDEO],
    'test': [
      SERVING,
      QUANTIZER,
      VIDEO,
      'hotcoco>=1.3,<2',
      'hypothesis>=6.100,<7',
      'ipykernel>=6.29,<8',
      'mypy>=1.18,<2',
      'nbclient>=0.10,<1',
      # The reference scorer under its PyPI name. It asks for numpy 1, which is not for Python 3.13;
      # there, the tests that compare with it are skipped.
      'panopticapi-lite>=0.2.0,<0.3; python_version < "3.13"',
      'pytest>=8,<10',
      'pytest-xdist>=3.6,<4',
      'ruff>=0.15,<1',
      SUPERVISION,
    ],
  },
)
