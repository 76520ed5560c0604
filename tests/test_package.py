"""The package as a whole: what a wheel holds, and which way imports go."""

import ast
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

IMPORT_EVERY_MODULE = """
import importlib, pkgutil, sys
import oanet_tf
assert oanet_tf.__file__.startswith(sys.argv[1]), oanet_tf.__file__
names = [module.name for module in pkgutil.walk_packages(oanet_tf.__path__, 'oanet_tf.')]
for name in names:
  importlib.import_module(name)
print('\\n'.join(names))
"""


def test_every_module_imports_from_the_built_wheel(tmp_path):
  source, site = tmp_path / 'source', tmp_path / 'site'
  shutil.copytree(ROOT / 'oanet_tf', source / 'oanet_tf')
  for name in ('setup.py', 'pyproject.toml', 'README.md'):
    shutil.copy(ROOT / name, source)
  pip = [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--target', site, source]
  subprocess.run(pip, check=True, cwd=tmp_path)
  done = subprocess.run(
    [sys.executable, '-c', IMPORT_EVERY_MODULE, site],
    check=True,
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={'PYTHONPATH': str(site), 'PATH': '', 'HOME': str(tmp_path)},
  )
  files = {path.relative_to(ROOT) for path in (ROOT / 'oanet_tf').rglob('*.py')}
  modules = {'.'.join(path.with_suffix('').parts).removesuffix('.__init__') for path in files}
  assert set(done.stdout.split()) == modules - {'oanet_tf'}


def imports_of(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


@pytest.mark.parametrize(
  ('folder', 'forbidden'),
  [
    (
      'data',
      ('modeling', 'evaluation', 'losses', 'inference', 'train_lib', 'train', 'predict', 'serving'),
    ),
    ('modeling', ('evaluation', 'losses', 'inference', 'train_lib', 'train', 'predict', 'serving')),
  ],
)
def test_imports_go_one_way(folder, forbidden):
  prefixes = tuple(f'oanet_tf.{name}' for name in forbidden)
  for path in (ROOT / 'oanet_tf' / folder).glob('*.py'):
    wrong = [name for name in imports_of(path) if name.startswith(prefixes)]
    assert not wrong, f'{path} imports {wrong}'
