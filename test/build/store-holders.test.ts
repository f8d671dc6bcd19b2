import { execFileSync, spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { StepOutcome } from '../../src/sandbox/sandbox.ts';
import { createDirectoryStore } from '../../src/store/directory-store.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import type { Store } from '../../src/store/store.ts';
import { holdsOf } from '../../src/store/tree-holders.ts';
import { idOf, never, writing } from '../contracts/store-contract.ts';
import { whyNoTestUsers } from '../helpers/test-users.ts';

const maker = 7765;
const accomplice = 7766;

let scratch = '';
let carrier = '';
let store: Store;
const takers: { child: ChildProcess; said: Interface }[] = [];

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'store-holders-'));
  chmodSync(scratch, 0o755);
  carrier = join(scratch, 'carrier');
  const source = fileURLToPath(new URL('descriptor-carrier.c', import.meta.url));
  execFileSync('cc', ['-Wall', '-Wextra', '-Werror', '-O1', '-o', carrier, source]);
});

beforeEach(async () => {
  mkdirSync(join(scratch, 'meet'));
  chmodSync(join(scratch, 'meet'), 0o777);
  store = await createDirectoryStore({ root: join(scratch, 'store'), copier: createRsyncCopier() });
});

afterEach(async () => {
  for (const { child } of takers.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  store.close();
  for (const name of ['meet', 'store']) rmSync(join(scratch, name), { recursive: true, force: true });
});

afterAll(() => rmSync(scratch, { recursive: true, force: true }));

interface Taker {
  readonly pid: number;
  /** The next line it says. */
  readonly heard: () => Promise<string>;
  /** Lets it write through what it has, and answers how that went. */
  readonly write: () => Promise<string>;
}

async function startTaker(how: string): Promise<Taker> {
  const child = spawn(carrier, ['take', String(accomplice), join(scratch, 'meet/socket'), how], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const said = createInterface({ input: child.stdout });
  takers.push({ child, said });
  const lines = said[Symbol.asyncIterator]();
  const heard = async () => String((await lines.next()).value);
  expect(await heard()).toBe('listening');
  return {
    pid: child.pid ?? 0,
    heard,
    write: async () => {
      child.stdin.write('\n');
      return await heard();
    },
  };
}

/** A step of the maker's that gives `file` away and ends. */
function giving(taker: Taker, file: string, flags: 'read' | 'write', mode = 0o755) {
  return async (directory: string): Promise<StepOutcome> => {
    const rootfs = join(directory, 'rootfs');
    writeFileSync(join(rootfs, 'file'), 'made by the step');
    mkdirSync(join(rootfs, 'open'));
    chmodSync(join(rootfs, 'open'), 0o777);
    for (const path of ['', 'file', 'open']) chownSync(join(rootfs, path), maker, maker);
    chmodSync(rootfs, mode);
    // The store is root's alone: the step comes in by its working directory.
    const giver = spawn(carrier, ['give', String(maker), join(scratch, 'meet/socket'), file, flags], {
      cwd: rootfs,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    expect((await once(giver, 'exit'))[0]).toBe(0);
    expect(await taker.heard()).toBe('taken');
    return { status: 'ok' };
  };
}

const request = { id: idOf('held'), base: undefined };

describe.skipIf(whyNoTestUsers !== undefined)('a step whose file another user can still write to', () => {
  it.each(['keep', 'map'])('is not saved: the other process has it (%s), and is named', async (how) => {
    const taker = await startTaker(how);
    const outcome = await store.build(request, giving(taker, 'file', 'write'), never);
    expect(outcome).toEqual({
      status: 'failed',
      message: `the step has ended, but its files could still be changed: it left open file by carrier (pid ${taker.pid})`,
    });
    expect(await store.find(idOf('held'))).toBeUndefined();
    // What it has leads nowhere: the next try has files of its own.
    expect(await store.build(request, writing({ file: 'new' }), never)).toEqual({ status: 'ok' });
    expect(await taker.write()).toBe('written');
    expect(readFileSync(join((await store.find(idOf('held'))) ?? '', 'rootfs/file'), 'utf8')).toBe('new');
  });

  it('is not saved while the descriptor is on its way in a socket', async () => {
    const taker = await startTaker('leave');
    const outcome = await store.build(request, giving(taker, 'file', 'write'), never);
    expect(outcome).toMatchObject({
      status: 'failed',
      message: expect.stringContaining('it left open file by something') as string,
    });
    expect(await taker.write()).toBe('written');
  });

  it('is not saved when the other may make files in a directory that it holds', async () => {
    const taker = await startTaker('directory');
    const outcome = await store.build(request, giving(taker, 'open', 'read'), never);
    expect(outcome).toMatchObject({
      status: 'failed',
      message: expect.stringContaining(`open by carrier (pid ${taker.pid})`) as string,
    });
  });

  it('is saved once the other has let go', async () => {
    const taker = await startTaker('keep');
    const outcome = await store.build(
      request,
      async (directory) => {
        const given = await giving(taker, 'file', 'write')(directory);
        expect(await taker.write()).toBe('written');
        return given;
      },
      never,
    );
    expect(outcome).toEqual({ status: 'ok' });
  });
});

describe('a tree that nobody can change', () => {
  it('may be read by us meanwhile', async () => {
    expect(await store.build(request, writing({ file: 'x' }), never)).toEqual({ status: 'ok' });
    const directory = join((await store.find(idOf('held'))) ?? '', 'rootfs');
    expect(await holdsOf(directory)).toEqual([]);
  });
});

describe('results that share files by hard links', () => {
  it('do not change when a step writes to the files of its own tree', async () => {
    const copier = createRsyncCopier('hardlink');
    const shared = await createDirectoryStore({ root: join(scratch, 'shared'), copier });
    const names = ['appended', 'truncated', 'chmodded', 'replaced', 'same'];
    const files = Object.fromEntries(names.map((name) => [name, 'base']));
    await shared.build({ id: idOf('base'), base: undefined }, writing(files), never);
    await shared.build({ id: idOf('child'), base: idOf('base') }, writing({ more: 'x' }), never);
    await shared.build(
      { id: idOf('grandchild'), base: idOf('child') },
      (directory) => {
        const at = (name: string) => join(directory, 'rootfs', name);
        for (const name of names) expect(statSync(at(name)).nlink).toBe(1);
        writeFileSync(at('appended'), ' and more', { flag: 'a' });
        writeFileSync(at('truncated'), '');
        chmodSync(at('chmodded'), 0o777);
        rmSync(at('replaced'));
        writeFileSync(at('replaced'), 'new');
        return Promise.resolve({ status: 'ok' });
      },
      never,
    );
    for (const id of ['base', 'child']) {
      const rootfs = join(scratch, 'shared/result', idOf(id), 'rootfs');
      for (const name of names) expect(readFileSync(join(rootfs, name), 'utf8')).toBe('base');
      expect(statSync(join(rootfs, 'chmodded')).mode & 0o7777).toBe(0o644);
    }
    const inode = (id: string) => statSync(join(scratch, 'shared/result', idOf(id), 'rootfs/same')).ino;
    expect(inode('grandchild')).toBe(inode('base'));
    shared.close();
    expect(existsSync(join(scratch, 'shared/state/reserve'))).toBe(true);
    expect(readdirSync(join(scratch, 'shared/result-tmp'))).toEqual([]);
    rmSync(join(scratch, 'shared'), { recursive: true });
  });
});
