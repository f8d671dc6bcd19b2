import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createHealthcheck } from '../../src/builder/healthcheck.ts';
import type { Store } from '../../src/store/store.ts';
import { createMockFetcher } from '../helpers/mock-fetcher.ts';
import { createMockSandbox, type MockSandbox } from '../helpers/mock-sandbox.ts';
import { createMockStore } from '../helpers/mock-store.ts';

let root: string;
let store: Store;
let sandbox: MockSandbox;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'healthcheck-'));
  store = createMockStore(root);
  sandbox = createMockSandbox();
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function healthcheck(timeoutMs?: number) {
  return createHealthcheck({ store, sandbox, fetcher: createMockFetcher([]) }, timeoutMs);
}

describe('healthcheck', () => {
  it('runs its step each time, as OBuilder has it, and leaves nothing', async () => {
    const check = healthcheck();
    expect([await check(), await check()]).toEqual([{ status: 'passed' }, { status: 'passed' }]);
    expect(sandbox.commands.map(({ argv }) => argv)).toEqual([
      ['/bin/sh', '-c', 'echo healthcheck'],
      ['/bin/sh', '-c', 'echo healthcheck'],
    ]);
    expect(store.records()).toEqual([]);
  });

  it('fails with what the step printed when it prints something else', async () => {
    const run = sandbox.run.bind(sandbox);
    sandbox.run = (command, rootfs, output, signal) => {
      output(Buffer.from('profile says hi\n'));
      return run(command, rootfs, output, signal);
    };
    expect(await healthcheck()()).toMatchObject({
      status: 'failed',
      message: expect.stringContaining('profile says hi') as unknown,
    });
    expect(store.records()).toEqual([]);
  });

  it('tells a failed step with its words', async () => {
    sandbox.run = (_command, _rootfs, output) => {
      output(Buffer.from('no shell\n'));
      return Promise.resolve({ status: 'failed', message: '"/bin/sh" failed with exit status 127' });
    };
    expect(await healthcheck()()).toEqual({
      status: 'failed',
      message: '"/bin/sh" failed with exit status 127\nno shell',
    });
  });

  it('gives up after its time', async () => {
    sandbox.run = async (_command, _rootfs, _output, signal) => {
      if (!signal.aborted) await once(signal, 'abort');
      return { status: 'cancelled' };
    };
    expect(await healthcheck(10)()).toEqual({ status: 'failed', message: 'Timeout running healthcheck' });
  });

  it('throws what makes the machine unable to build', async () => {
    sandbox.breakWith(new Error('no mount'));
    await expect(healthcheck()()).rejects.toThrow('no mount');
    expect(store.records()).toEqual([]);
  });
});
