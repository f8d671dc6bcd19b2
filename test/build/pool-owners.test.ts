import { chownSync, closeSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { native } from '../../src/fs/native.ts';
import { makeScratchDirectory, removeScratch, runProgram, whyNoMounts } from '../helpers/scratch-mount.ts';

const [stored, shown] = [7770, 7771];

describe.skipIf(whyNoMounts !== undefined)('trees shown as another owner’s', () => {
  let directory: string;

  beforeAll(() => {
    directory = makeScratchDirectory();
    mkdirSync(join(directory, 'tree'));
    writeFileSync(join(directory, 'tree/roots'), '');
    writeFileSync(join(directory, 'tree/mine'), '');
    for (const path of ['tree', 'tree/mine']) chownSync(join(directory, path), stored, stored);
  });
  afterAll(() => removeScratch(directory));

  const open = (path = join(directory, 'tree')) =>
    native().openMappedNamespace([
      { path, storedUid: stored, storedGid: stored, shownUid: shown, shownGid: shown },
    ]);
  const inside = (namespace: number, ...argv: string[]) =>
    runProgram(['nsenter', `--mount=/proc/${process.pid}/fd/${namespace}`, '--', ...argv]);
  const asShown = ['setpriv', `--reuid=${shown}`, `--regid=${shown}`, '--clear-groups', '--'];

  it('the stored owner’s files are the shown one’s, others’ stay theirs, and no id is lost', async () => {
    const namespace = await open();
    const owners = ['.', 'mine', 'roots'].map((name) => join(directory, 'tree', name));
    expect(inside(namespace, 'stat', '-c%u:%g', ...owners).stdout).toBe('7771:7771\n7771:7771\n0:0\n');
    const made = join(directory, 'tree/made');
    expect(inside(namespace, ...asShown, 'sh', '-c', `echo x > ${made}; echo x > ${owners[1]}`).stderr).toBe(
      '',
    );
    expect([statSync(made).uid, statSync(made).gid]).toEqual([stored, stored]);
    for (const id of [0, 1, stored, 65534, 2 ** 32 - 2]) {
      const path = join(directory, 'tree', `of-${id}`);
      writeFileSync(path, '');
      chownSync(path, id, id);
      const seen = id === stored ? shown : id;
      expect(inside(namespace, 'stat', '-c%u:%g', path).stdout).toBe(`${seen}:${seen}\n`);
    }
    closeSync(namespace);
    expect(runProgram(['stat', '-c%u', join(directory, 'tree')]).stdout).toBe(`${stored}\n`);
  });

  it('as many at once as are asked for', async () => {
    const all = await Promise.all(Array.from({ length: 32 }, () => open()));
    for (const namespace of all) {
      expect(statSync(`/proc/${process.pid}/fd/${namespace}`).ino).toBeGreaterThan(0);
      closeSync(namespace);
    }
  });

  it('a file system that cannot is told by its error, and what is missing too', async () => {
    await expect(open('/sys')).rejects.toMatchObject({ code: 'EINVAL' });
    await expect(open(join(directory, 'missing'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});
