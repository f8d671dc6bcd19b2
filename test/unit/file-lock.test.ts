import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';

const addon = join(import.meta.dirname, '../../build/Release/obuilder_fs.node');
const ROUNDS = 100;

// The lock comes free while the worker that waits for it ends: before, in the middle, after.
const program = `
  const { closeSync, openSync } = require('node:fs');
  const { once } = require('node:events');
  const { Worker } = require('node:worker_threads');
  const [addonPath, path, trackUnmanagedFds] = process.argv.slice(1);
  const addon = require(addonPath);
  const waiter = \`
    const { parentPort, workerData } = require('node:worker_threads');
    const addon = require(workerData.addonPath);
    const fd = require('node:fs').openSync(workerData.path, 'a');
    addon.flockWait(fd, false, false);
    parentPort.postMessage('waiting');
  \`;
  async function round(turns) {
    const fd = openSync(path, 'a');
    if (!addon.flockTry(fd, true)) await addon.flockWait(fd, true, true);
    const worker = new Worker(waiter, {
      eval: true, workerData: { addonPath, path }, trackUnmanagedFds: trackUnmanagedFds === 'true',
    });
    const ended = once(worker, 'exit');
    await once(worker, 'message');
    for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
    closeSync(fd);
    await ended;
  }
  (async () => {
    for (let count = 0; count < ${ROUNDS}; count++) await round((count % 20) ** 2);
    const fd = openSync(path, 'a');
    if (!addon.flockTry(fd, true)) await addon.flockWait(fd, true, true);
    console.log('the lock is free');
  })();
`;

it.each(['true', 'false'])(
  'a worker that ends while it waits for a lock neither brings its process down nor keeps the lock (trackUnmanagedFds: %s)',
  (trackUnmanagedFds) => {
    const directory = mkdtempSync(join(tmpdir(), 'file-lock-'));
    try {
      const args = ['-e', program, addon, join(directory, 'lock'), trackUnmanagedFds];
      const answer = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 120_000 });
      expect(answer).toMatchObject({ status: 0, signal: null, stderr: '', stdout: 'the lock is free\n' });
    } finally {
      rmSync(directory, { recursive: true });
    }
  },
);

// Node unloads an addon with the last environment that has loaded it, which here is the worker.
const programWithoutAddon = `
  const { spawn } = require('node:child_process');
  const { once } = require('node:events');
  const { Worker } = require('node:worker_threads');
  const [addonPath, path] = process.argv.slice(1);
  const waiter = \`
    const { workerData } = require('node:worker_threads');
    const addon = require(workerData.addonPath);
    addon.flockWait(require('node:fs').openSync(workerData.path, 'a'), false, false);
  \`;
  (async () => {
    const holder = spawn('flock', [path, 'sh', '-c', 'echo held; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(holder.stdout, 'data');
    await once(new Worker(waiter, { eval: true, workerData: { addonPath, path } }), 'exit');
    holder.stdin.end();
    await once(holder, 'close');
    await once(spawn('flock', [path, 'true']), 'close'); // comes after the worker's thread, which has gone on by then
    console.log('still there');
  })();
`;

it('a worker that alone has loaded the addon may end before its threads do', () => {
  const directory = mkdtempSync(join(tmpdir(), 'file-lock-'));
  try {
    const args = ['-e', programWithoutAddon, addon, join(directory, 'lock')];
    const answer = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 120_000 });
    expect(answer).toMatchObject({ status: 0, signal: null, stderr: '', stdout: 'still there\n' });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
