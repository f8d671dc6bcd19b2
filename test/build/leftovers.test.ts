import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { runCommand } from '../../src/os/exec.ts';
import { createMovedHome } from '../../src/sandbox/home-placement.ts';
import { removeOwned } from '../../src/sandbox/leftovers.ts';
import { createLinuxSystem, parseIpcList } from '../../src/sandbox/linux-system.ts';
import { RecordedCommands } from '../helpers/recorded-commands.ts';
import { makeScratchDirectory, removeScratch, whyNoMounts } from '../helpers/scratch-mount.ts';
import { createScratchSandbox, type ScratchSandbox } from '../helpers/scratch-sandbox.ts';

const [uid, neighbour] = [7813, 7814] as const;

/** Runs a script as a uid without an account. */
function as(owner: number, script: string): string {
  const ids = ['--reuid', String(owner), '--regid', String(owner), '--clear-groups'];
  return execFileSync('setpriv', [...ids, '--', '/bin/sh', '-c', script], { encoding: 'utf8' });
}

describe.skipIf(whyNoMounts !== undefined)('what a uid left where everybody may write', () => {
  let directory: string;
  let shared: string;
  const path = (name: string) => join(directory, name);

  beforeEach(() => {
    directory = makeScratchDirectory();
    chmodSync(directory, 0o755);
    shared = path('shared');
    mkdirSync(shared);
    chmodSync(shared, 0o1777);
  });
  afterEach(() => removeScratch(directory));

  it('is removed: files, pipes, links and whole directories, whatever their modes and names', async () => {
    as(uid, `cd ${shared}; touch file ./-delete 'a\nb'; mkfifo pipe; ln -s /etc/passwd link`);
    as(uid, `cd ${shared}; mkdir -p tree/deep/er; touch tree/deep/er/file; chmod 0 tree/deep tree`);
    await removeOwned(uid, [shared], runCommand);
    expect(readdirSync(shared)).toEqual([]);
  });

  it('nothing is touched where a planted link leads to, even of its own', async () => {
    mkdirSync(path('outside'));
    writeFileSync(path('outside/own'), 'kept');
    chownSync(path('outside'), uid, uid);
    chownSync(path('outside/own'), uid, uid);
    as(uid, `cd ${shared}; ln -s ${path('outside')} link; mkdir tree; ln -s ${path('outside')} tree/link`);
    symlinkSync(path('outside'), path('replaced')); // a shared directory that is a link itself
    await removeOwned(uid, [shared, path('replaced')], runCommand);
    expect(readdirSync(shared)).toEqual([]);
    expect(lstatSync(path('outside/own')).uid).toBe(uid);
  });

  it('what is another’s stays, beside it and in its directories', async () => {
    as(neighbour, `cd ${shared}; touch file; mkdir -m 777 tree`);
    as(uid, `cd ${shared}; touch tree/guest; mkdir -m 777 own; touch own/file`);
    as(neighbour, `touch ${shared}/own/guest`);
    writeFileSync(join(shared, 'roots'), '');
    linkSync(join(shared, 'roots'), join(shared, 'own/roots'));
    await removeOwned(uid, [shared], runCommand);
    expect(readdirSync(shared).sort()).toEqual(['file', 'own', 'roots', 'tree']);
    expect(readdirSync(join(shared, 'own')).sort()).toEqual(['guest', 'roots']);
  });

  it('no command is run where there is nothing of it', async () => {
    as(neighbour, `touch ${shared}/file`);
    const commands = new RecordedCommands({});
    await removeOwned(uid, [shared, path('missing'), join(shared, 'file')], commands.run);
    expect(commands.taken()).toEqual([]);
  });

  it('more directories than one command takes are removed', async () => {
    as(uid, `cd ${shared}; mkdir $(seq 1200)`);
    await removeOwned(uid, [shared], runCommand);
    expect(readdirSync(shared)).toEqual([]);
  });
});

describe.skipIf(whyNoMounts !== undefined)('on this machine', () => {
  const file = 'obuilder-fs-leftover-of-tests';
  const everywhere = ['/tmp', '/var/tmp', '/dev/shm', '/run/lock'].filter(
    (directory) => existsSync(directory) && (lstatSync(directory).mode & 0o7777) === 0o1777,
  );
  const left = () => everywhere.map((directory) => join(directory, file)).filter((path) => existsSync(path));
  const objects = (owner: number) =>
    (['msg', 'shm', 'sem'] as const).flatMap((kind) =>
      parseIpcList(
        owner,
        `${kind === 'msg' ? 'msq' : kind}id`,
        readFileSync(`/proc/sysvipc/${kind}`, 'utf8'),
      ),
    );
  const leave = everywhere.map((directory) => `touch ${join(directory, file)}`).join('; ');
  const makeObjects = 'ipcmk -Q; ipcmk -S 2; ipcmk -M 4096';
  let scratch: ScratchSandbox;

  beforeAll(async () => {
    scratch = await createScratchSandbox([uid]);
  });
  afterEach(async () => {
    for (const owner of [uid, neighbour]) {
      await createLinuxSystem({ homePath: '' }).clearLeftovers({
        uid: owner,
        gid: owner,
        name: '',
        homePath: '',
      });
      expect(objects(owner)).toEqual([]);
    }
    expect(left()).toEqual([]);
  });
  afterAll(() => scratch.close());

  it('a step begins without the files and the System V objects that were left', async () => {
    as(uid, `${leave}; ${makeObjects}`);
    as(neighbour, makeObjects);
    expect(objects(uid)).toHaveLength(3);
    await scratch.run('true');
    expect([left(), objects(uid)]).toEqual([[], []]);
    expect(objects(neighbour)).toHaveLength(3);
  });

  it('a step without namespaces leaves none, and only its own login reads its startup files', async () => {
    const home = createMovedHome({ homePath: scratch.homePath, journal: scratch.path('placed.json') });
    const options = { home, prefixMode: 'none' } as const;
    const cache = scratch.path('cache');
    mkdirSync(cache);
    chownSync(cache, uid, uid);
    const plant = 'for f in bashrc bash_profile; do echo "echo $f >>~/read" >.$f; done';
    await scratch.run(plant, { options, tree: 'moved' });
    const { output, outcome } = await scratch.run(`${leave}; ${makeObjects}; cat ~/read`, {
      options,
      tree: 'moved',
      command: { caches: [{ target: join(scratch.homePath, 'cache'), directory: cache }] },
    });
    expect(outcome).toEqual({ status: 'ok' });
    expect(output).toMatch(/^Message queue id: .*\nSemaphore id: .*\nShared memory id: .*\nbash_profile\n$/);
    expect([left(), objects(uid)]).toEqual([[], []]);
    const rootfs = scratch.path('store', 'moved', 'rootfs');
    expect(readFileSync(join(rootfs, 'read'), 'utf8')).toBe('bash_profile\n');
    rmSync(cache, { recursive: true });
  });
});
