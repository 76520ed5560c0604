"""Runs trainings and evaluations as separate processes, so that their memory is freed.

Several processes may share a folder: each training holds a lock, which the system releases when the
process ends, however it ends.
"""

import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

import tqdm

from oanet_tf import files
from oanet_tf.errors import InputError
from oanet_tf.paper.plan import DIVERGED_FILE, Job

# The error of `oanet_tf.train` for a loss or a weight that is not finite.
_DIVERGED = re.compile(r'error: (step \d+: (non-finite|weight \S+ is not finite).*)')
# Bytes at the end of a command's output that are searched for its error.
_TAIL = 10_000
_SECONDS_BETWEEN_LOOKS = 5.0

# Arguments of `python`, the lock's file descriptor -> exit code, end of the output.
Runner = Callable[[Sequence[str], int], tuple[int, str]]


def run_python(arguments: Sequence[str], lock: int) -> tuple[int, str]:
  """Runs Python with arguments; the output goes to standard error.

  An interrupt is passed on to the command, which then has time to write its state.

  Args:
    arguments: such as `-m oanet_tf.train …`.
    lock: file descriptor that the command keeps open too.

  Returns:
    Exit code, and the end of the output.
  """
  process = subprocess.Popen(
    [sys.executable, *arguments],
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    pass_fds=[lock],
    # Ctrl-C in the terminal reaches only this process, which passes it on once.
    start_new_session=True,
  )
  tail = b''
  try:
    while chunk := process.stdout.read1():
      sys.stderr.buffer.write(chunk)
      sys.stderr.flush()
      tail = (tail + chunk)[-_TAIL:]
  except KeyboardInterrupt:
    process.terminate()
    raise
  finally:
    code = process.wait()
  return code, tail.decode(errors='replace')


def run_all(jobs: Sequence[Job], run: Runner = run_python) -> None:
  """Does all jobs that are not done yet, or waits for the processes that do them.

  Raises:
    InputError: if a command fails, unless its training diverged.
  """
  waiting = list(jobs)
  with tqdm.tqdm(total=len(jobs), desc='trainings', unit='training') as progress:
    while waiting:
      found = next((job for job in waiting if job.is_done), None) or _do_one(waiting, run)
      if found is None:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
      else:
        waiting.remove(found)
        progress.update()


def _do_one(jobs: Sequence[Job], run: Runner) -> Job | None:
  """Does and returns the first job that is ready and not locked; None if there is none."""
  for job in jobs:
    if all(scoring.network.has_ended for scoring in job.scorings if scoring.srm):
      folder = job.training.folder
      files.make_folder(folder)
      with files.locked(folder / '.lock') as lock:
        if lock is not None:
          _do(job, run, lock)
          return job
  return None


def _do(job: Job, run: Runner, lock: int) -> None:
  training = job.training
  if not training.has_ended:
    code, output = run(['-m', 'oanet_tf.train', '--mode', 'train', *training.arguments], lock)
    if code == 2 and (match := _DIVERGED.search(output)):
      files.write_text(training.folder / DIVERGED_FILE, match[1] + '\n')
    else:
      _check(code, output, training.folder)
  for scoring in job.scorings:
    if not scoring.is_done:
      code, output = run(['-m', 'oanet_tf.evaluate', *scoring.arguments], lock)
      _check(code, output, training.folder)


def _check(code: int, output: str, folder: pathlib.Path) -> None:
  if code:
    lines = [line.strip() for line in re.split(r'[\r\n]', output) if line.strip()]
    last = lines[-1].removeprefix('error: ') if lines else 'it said nothing'
    raise InputError(f'{folder}: the command ended with exit code {code}: {last}')
