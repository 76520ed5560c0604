"""A headless Chromium, driven by the DevTools protocol over a pipe: needs no package."""

import base64
import json
import os
import select
import shutil
import subprocess

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable', 'chrome')
_SECONDS = 30


def find_chromium():
  """Path of the program, or None."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page in one browser.

  Attributes:
    problems: what the page wrote on its console, and what it failed to do, as text.
    requests: URLs that the page asked for.
  """

  def __init__(self, profile):
    commands, self._to = os.pipe()
    self._from, answers = os.pipe()
    # Chromium reads commands from descriptor 3 and writes answers to 4.
    redirect = f'exec "$0" "$@" 3<&{commands} 4>&{answers}'
    flags = ('--headless', '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage')
    flags += ('--hide-scrollbars', '--remote-debugging-pipe', f'--user-data-dir={profile}')
    self._process = subprocess.Popen(
      ['bash', '-c', redirect, find_chromium(), *flags, 'about:blank'],
      pass_fds=(commands, answers),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    self.problems, self.requests = [], []
    self._buffer, self._number, self._session, self._events = b'', 0, None, []
    target = self._send('Target.createTarget', url='about:blank')['targetId']
    attached = self._send('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']
    for domain in ('Page', 'Runtime', 'Log', 'Network'):
      self._send(f'{domain}.enable')

  def open(self, path, width=1200, height=900, dark=False):
    """Loads a file into a window of so many CSS pixels."""
    self._send(
      'Emulation.setDeviceMetricsOverride',
      width=width,
      height=height,
      deviceScaleFactor=1,
      mobile=width < 600,
    )
    scheme = {'name': 'prefers-color-scheme', 'value': 'dark' if dark else 'light'}
    self._send('Emulation.setEmulatedMedia', features=[scheme])
    self._events.clear()
    self._send('Page.navigate', url=path.resolve().as_uri())
    while not any(event['method'] == 'Page.loadEventFired' for event in self._events):
      self._receive()

  def evaluate(self, expression):
    """The value of a JavaScript expression."""
    answer = self._send('Runtime.evaluate', expression=expression, returnByValue=True)
    assert 'exceptionDetails' not in answer, answer['exceptionDetails']
    return answer['result'].get('value')

  def press(self, key, text=''):
    """A key, as a user presses it."""
    self._send('Input.dispatchKeyEvent', type='keyDown', key=key, code=key, text=text)
    self._send('Input.dispatchKeyEvent', type='keyUp', key=key, code=key)

  def screenshot(self, path, whole_page=False):
    """Writes a PNG."""
    answer = self._send('Page.captureScreenshot', captureBeyondViewport=whole_page)
    path.write_bytes(base64.b64decode(answer['data']))

  def close(self):
    self._process.kill()
    self._process.wait()
    os.close(self._to)
    os.close(self._from)

  def _send(self, method, **parameters):
    """A command's result."""
    self._number += 1
    command = {'id': self._number, 'method': method, 'params': parameters}
    if self._session:
      command['sessionId'] = self._session
    os.write(self._to, json.dumps(command).encode() + b'\0')
    while True:
      message = self._receive()
      if message.get('id') == self._number:
        assert 'error' not in message, message['error']
        return message['result']

  def _receive(self):
    """The next message; an event is noted too."""
    while b'\0' not in self._buffer:
      assert select.select([self._from], [], [], _SECONDS)[0], 'the browser does not answer'
      chunk = os.read(self._from, 1 << 20)
      if not chunk:
        raise EOFError('the browser has ended')
      self._buffer += chunk
    line, self._buffer = self._buffer.split(b'\0', 1)
    message = json.loads(line)
    if 'method' in message:
      self._note(message)
    return message

  def _note(self, event):
    self._events.append(event)
    method, parameters = event['method'], event['params']
    if method in ('Runtime.consoleAPICalled', 'Runtime.exceptionThrown', 'Log.entryAdded'):
      self.problems.append(json.dumps(parameters))
    if method == 'Network.requestWillBeSent':
      self.requests.append(parameters['request']['url'])
