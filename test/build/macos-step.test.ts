import { existsSync, readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { allKilled } from '../../src/sandbox/end-processes.ts';
import type { HostSystem } from '../../src/sandbox/host-system.ts';
import { createLinuxSystem } from '../../src/sandbox/linux-system.ts';
import { createMacosSystem } from '../../src/sandbox/macos-system.ts';
import { RecordedCommands } from '../helpers/recorded-commands.ts';
import { createScratchSandbox, type ScratchSandbox } from '../helpers/scratch-sandbox.ts';
import { whyNoTestUsers } from '../helpers/test-users.ts';

const uid = 7811;

/** A step as macOS runs it, by Linux's accounts and su: what macOS would be told before and after it is recorded. */
describe.skipIf(whyNoTestUsers !== undefined)('a step without namespaces, by the commands of macOS', () => {
  let scratch: ScratchSandbox;
  beforeAll(async () => {
    scratch = await createScratchSandbox([uid]);
  });
  afterAll(() => scratch.close());

  it.each([
    ['that ends well', 'true', 'ok'],
    ['that fails', 'false', 'failed'],
  ])('%s: the user is cleared before and after, at home while it runs', async (_, end, status) => {
    const commands = new RecordedCommands({ [process.execPath]: [{ exitCode: allKilled }] });
    const { homePath } = scratch;
    const linux = createLinuxSystem({ homePath });
    const macos = createMacosSystem({ homePath, run: commands.run, sharedDirectories: [] });
    const system: HostSystem = {
      ...macos,
      users: linux.users,
      entry: (user, step) => linux.entry(user, step),
      asUser: (user, argv) => linux.asUser(user, argv),
    };
    const { outcome, output } = await scratch.run(`pwd; echo kept >~/kept; ${end}`, {
      options: { system, prefixMode: 'none' },
    });
    expect([outcome.status, output]).toEqual([status, `${homePath}\n`]);
    const cleared = ['launchctl bootout', process.execPath, 'pkill', 'pkill', 'ps', 'su', 'crontab', 'ipcs'];
    const starts = commands.taken().map((line) => cleared.find((start) => line.startsWith(start)) ?? line);
    expect(starts).toEqual([...cleared, ...cleared]);
    expect(readFileSync(scratch.path('store', 'tree', 'rootfs', 'kept'), 'utf8')).toBe('kept\n');
    expect(existsSync(`${homePath}/kept`)).toBe(false);
  });
});
