import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { whyNoMounts } from '../helpers/scratch-mount.ts';
import { mountFolder, servings, type MountedFolder, type Serving } from '../posix/mounted-folders.ts';
import { compilePosixPrograms, runModel, type PosixPrograms } from '../posix/posix-programs.ts';

const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const OPERATIONS = isLong ? 50_000 : 1_500;
const givenSeed = process.env['OBUILDER_FS_SEED'];
const seed = givenSeed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(givenSeed);
const models = ['data', 'names'] as const;

describe.skipIf(whyNoMounts !== undefined)(
  `${OPERATIONS} random operations against a model, OBUILDER_FS_SEED=${seed}`,
  () => {
    let programs: PosixPrograms;
    beforeAll(() => {
      programs = compilePosixPrograms();
    });
    afterAll(() => programs.close());

    const run = (model: 'data' | 'names', folder: string, wrap?: (argv: string[]) => string[]) =>
      runModel(programs, { model, folder, seed, operations: OPERATIONS }, wrap);

    it.each(models)('%s in a plain folder', (model) => {
      const folder = mkdtempSync(join(tmpdir(), 'obuilder-fs-plain.'));
      chmodSync(folder, 0o777);
      const outcome = run(model, folder);
      rmSync(folder, { recursive: true });
      expect(outcome).toBe('ok');
    });

    describe.each<Serving>(servings)('--backing=$backing --cache=$cache, io_uring: $byIoUring', (serving) => {
      let mounted: MountedFolder;
      beforeAll(() => {
        mounted = mountFolder(serving);
      });
      afterAll(() => mounted.scratch.close());

      it('data in the shared root', () => {
        expect(run('data', mounted.folder)).toBe('ok');
      });
      it.each(models)('%s in a tree root', (model) => {
        expect(run(model, mounted.folder, mounted.asTreeRoot)).toBe('ok');
      });
      // A rename from below into the shared root is refused while names are cached.
      it.skipIf(serving.cache === 'auto')('names in the shared root', () => {
        expect(run('names', mounted.folder)).toBe('ok');
      });
    });
  },
);
