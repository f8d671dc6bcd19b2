import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runProgram, whyNoMounts } from '../helpers/scratch-mount.ts';
import { mountFolder, servings, type MountedFolder, type Serving } from '../posix/mounted-folders.ts';
import {
  compilePosixPrograms,
  listPosixTests,
  runPosixSuite,
  type PosixResults,
} from '../posix/posix-programs.ts';

const canRun = whyNoMounts === undefined;
const programs = canRun ? compilePosixPrograms() : undefined;
const names = programs === undefined ? [] : listPosixTests(programs);

afterAll(() => programs?.close());

/** The slowest test by far: 10,000 names. Short runs meet it in one folder of each backing. */
const BIG = 'a directory of 10,000 names lists each once, and telldir leads back to any of them';
const WITHOUT_BIG = '!(a directory of 10,000*)';
const isLong = process.env['OBUILDER_FS_LONG'] === '1';

/** Runs all tests at once (they take a process each), and has every one answer for itself. */
function describeRun(title: string, takes: readonly string[], run: () => PosixResults): void {
  describe(title, () => {
    let results: PosixResults = new Map();
    beforeAll(() => {
      results = run();
    });
    it.each(takes)('%s', (name) => {
      expect(results.get(name)).toBe('ok');
    });
  });
}

function suite(folder: string, options?: Parameters<typeof runPosixSuite>[2]): PosixResults {
  if (programs === undefined) throw new Error('BUG: not compiled');
  return runPosixSuite(programs, folder, options);
}

describe.skipIf(!canRun)('POSIX', () => {
  describeRun('in a plain folder', names, () => {
    const folder = mkdtempSync(join(tmpdir(), 'obuilder-fs-plain.'));
    chmodSync(folder, 0o777);
    try {
      return suite(folder);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  describe.each<Serving>(servings)('--backing=$backing --cache=$cache, io_uring: $byIoUring', (serving) => {
    const short = isLong ? names : names.filter((name) => name !== BIG);
    const pattern = isLong ? '*' : WITHOUT_BIG;
    const [inShared, inTree] = serving.cache === 'auto' ? [short, names] : [short, short];
    let mounted: MountedFolder;
    beforeAll(() => {
      mounted = mountFolder(serving);
    });
    afterAll(() => mounted.scratch.close());

    describeRun('in the shared root', inShared, () => suite(mounted.folder, { pattern }));
    describeRun('in a tree root', inTree, () =>
      suite(mounted.folder, { pattern: inTree === names ? '*' : pattern, wrap: mounted.asTreeRoot }),
    );
    if (!isLong) return; // what lies below is served as in a tree root
    describeRun('below the shared root', short, () => {
      // By another process: this one must not wait on a mount.
      const made = runProgram(['mkdir', '-m', '777', mounted.below]);
      if (made.code !== 0) throw new Error(made.stderr);
      return suite(mounted.below, { pattern });
    });
  });

  it('--backing=descriptors passes the same tests in the shared root', () => {
    const mounted = mountFolder({ backing: 'descriptors', cache: 'auto', byIoUring: false });
    try {
      const failed = [...suite(mounted.folder, { pattern: WITHOUT_BIG })].filter(([, why]) => why !== 'ok');
      expect(failed).toEqual([]);
    } finally {
      mounted.scratch.close();
    }
  });
});
