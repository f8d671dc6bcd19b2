import { spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { BuilderOptions, EmbeddedBuilder } from '../../src/index.ts';
import {
  createScratchPool,
  poolUids,
  run,
  runBuild,
  specOf,
  type ScratchPool,
} from '../helpers/scratch-pool.ts';
import { whyNoMounts } from '../helpers/scratch-mount.ts';

const [first, second, third] = poolUids;
const modes = ['tree', 'shared', 'bind', 'none'] as const;

describe.skipIf(whyNoMounts !== undefined)('builds by several build users', () => {
  let scratch: ScratchPool;

  beforeAll(async () => {
    scratch = await createScratchPool();
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  async function withBuilder(
    options: BuilderOptions,
    use: (builder: EmbeddedBuilder) => Promise<void>,
  ): Promise<void> {
    const builder = await scratch.open(options);
    try {
      await use(builder);
    } finally {
      await builder.close();
    }
  }

  const context = () => ({ context: scratch.path('context') });

  /** As `uid`: every other build user of the builder is busy. */
  async function buildAs(builder: EmbeddedBuilder, uid: number, spec: string) {
    const others = poolUids.filter((one) => one !== uid).map((one) => scratch.hold(one));
    try {
      return await runBuild(builder, spec, context());
    } finally {
      for (const other of others) other.release();
    }
  }

  /** Owners of everything in a result, and of its caches. */
  function owners(directory: string): string[] {
    const paths = ['', ...readdirSync(directory, { recursive: true, encoding: 'utf8' })];
    const all = paths.map((path) => lstatSync(join(directory, path))).map(({ uid, gid }) => `${uid}:${gid}`);
    return [...new Set(all)];
  }

  describe.each(modes)('in prefix mode %s', (prefixMode) => {
    it('a result made by one, with the home path in its scripts, is built on by others, and its programs run', async () => {
      // In mode none the prefix is the machine's.
      const bins = prefixMode === 'none' ? '~/bin' : `~/bin ${scratch.prefix}/bin`;
      const makes = specOf(
        `(env MODE ${prefixMode})`, // steps of their own for each mode
        run(`set -e
          test "$(id -u)" = ${second}
          mkdir -p ~/bin ~/lib; cp /bin/cat ~/bin/interpreter; ln ~/bin/interpreter ~/bin/hard
          for bin in ${bins}; do
            printf '#!%s/bin/interpreter\\n%s works\\n' ~ $bin > $bin/tool; chmod 755 $bin/tool
          done
          umask 077; echo mine > ~/lib/private; ln -s $HOME/lib/private ~/lib/link; mkdir -m 2750 ~/lib/setgid`),
      );
      const builtOn = (uid: number) =>
        makes.replace(
          /\)$/,
          `${run(`set -e
            echo ${uid}; test "$(id -u)" = ${uid}; test ~ = ${scratch.homePath}
            test -z "$(find ~ ! -user ${uid} -o ! -group ${uid})"
            for bin in ${bins}; do
              test "$(stat -c %u:%g $bin/tool)" = ${uid}:${uid}; $bin/tool
              echo '# more' >> $bin/tool; mv $bin/tool $bin/moved; touch $bin/new-${uid}; ln $bin/moved $bin/linked
            done
            cat ~/lib/link; rm ~/bin/hard; chmod 700 ~/lib/setgid; touch ~/lib/setgid/x`)})`,
        );
      await withBuilder({ prefixMode }, async (builder) => {
        const made = await buildAs(builder, second, makes);
        const before = owners(scratch.rootfs(made.id));
        expect(before).toEqual([`${first}:${first}`]);
        for (const uid of [first, second]) {
          const { id, output } = await buildAs(builder, uid, builtOn(uid));
          expect(output.match(/works/g)).toHaveLength(bins.split(' ').length);
          expect(output).toContain('mine\n');
          expect(owners(scratch.rootfs(id))).toEqual([`${first}:${first}`]);
          expect(statSync(join(scratch.rootfs(id), 'lib/setgid')).mode & 0o7777).toBe(0o2700);
        }
      });
      await withBuilder({ prefixMode, uid: third, builders: 1 }, async (builder) => {
        const { id, output } = await runBuild(builder, builtOn(third), context());
        expect(output).toContain('works');
        expect(owners(scratch.rootfs(id))).toEqual([`${first}:${first}`]);
      });
    });
  });
});
