"""The package as a whole: what a wheel holds, and which way imports go."""

import ast
import graphlib
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from oanet_tf import errors

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


def metadata_of(site):
  (metadata,) = site.glob('oanet_tf-*.dist-info/METADATA')
  return metadata.read_text()


@pytest.mark.heavy
def test_every_module_imports_from_the_built_wheel(tmp_path):
  source, site = tmp_path / 'source', tmp_path / 'site'
  shutil.copytree(ROOT / 'oanet_tf', source / 'oanet_tf')
  for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
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
  (licence,) = site.glob('oanet_tf-*.dist-info/**/LICENSE')
  assert licence.read_bytes() == (ROOT / 'LICENSE').read_bytes()
  (entry_points,) = site.glob('oanet_tf-*.dist-info/entry_points.txt')
  assert 'oanet = oanet_tf.__main__:run' in entry_points.read_text()
  assert (site / 'oanet_tf' / 'py.typed').is_file()
  extras = set(re.findall(r'^Provides-Extra: (.*)$', metadata_of(site), re.MULTILINE))
  named = {
    extra for remedy in errors.REMEDIES.values() for extra in re.findall(r'\[(.*)\]', remedy)
  }
  assert named and named <= extras
  needs = re.findall(r'^Requires-Dist: (tensorflow\b(?!-).*)$', metadata_of(site), re.MULTILINE)
  plain, with_cuda = (need.replace(' ', '') for need in sorted(needs, key=len))
  version = plain.removeprefix('tensorflow')
  assert with_cuda == f'tensorflow[and-cuda]{version};extra=="gpu"'
  # With nothing but the wheel: pictures, network and all.
  done = subprocess.run(
    [sys.executable, '-m', 'oanet_tf', 'predict'],
    check=True,
    capture_output=True,
    text=True,
    cwd=tmp_path,
    env={'PYTHONPATH': str(site), 'PATH': '', 'HOME': str(tmp_path)},
  )
  assert '2 pictures' in done.stdout
  assert len(list((tmp_path / 'oanet_results' / 'overlays').iterdir())) == 2


def imports_of(path):
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.ImportFrom) and node.module:
      yield from (f'{node.module}.{alias.name}' for alias in node.names)
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)


def package_imports():
  """(importing, imported) module names, within the package."""
  for path in (ROOT / 'oanet_tf').rglob('*.py'):
    module = '.'.join(path.relative_to(ROOT).with_suffix('').parts)
    for name in imports_of(path):
      if name.startswith('oanet_tf.'):
        yield module, name


def test_folders_import_one_way():
  folders = {path.parent.name for path in (ROOT / 'oanet_tf').glob('*/__init__.py')}
  imports = {folder: set() for folder in folders}
  for names in package_imports():
    importing, imported = (name.split('.')[1] for name in names)
    if importing != imported and {importing, imported} <= folders:
      imports[importing].add(imported)
  # Raises CycleError, which names the folders.
  order = list(graphlib.TopologicalSorter(imports).static_order())
  for branch in ('evaluation', 'weights'):
    expected = ['config', 'data', 'modeling', branch, 'training']
    assert [folder for folder in order if folder in expected] == expected


def test_nobody_imports_a_command():
  commands = {
    f'oanet_tf.{path.stem}'
    for path in (ROOT / 'oanet_tf').glob('*.py')
    if 'errors.run(main)' in path.read_text()
  }
  assert 'oanet_tf.predict' in commands
  wrong = [(a, b) for a, b in package_imports() if b in commands]
  assert not wrong
