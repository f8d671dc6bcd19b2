import { spawn, spawnSync } from 'node:child_process';
import { lstatSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { BuilderOptions, EmbeddedBuilder } from '../../src/index.ts';
import {
  createScratchPool,
  poolUids,
  run,
  runBuild,
  specOf,
  type ScratchPool,
} from '../helpers/scratch-pool.ts';
import { mainProgram, whyNoMounts } from '../helpers/scratch-mount.ts';

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

  it('under a mount that maps no owners, a step’s own files are given to its user and back', async () => {
    const base = specOf(run('echo from-first > ~/local/file; echo 1 > ~/mine; chmod 640 ~/mine'));
    const onTop = base.replace(
      /\)$/,
      `${run(`set -e
      test "$(stat -c %u:%g ~ ~/mine ${scratch.prefix}/file | sort -u)" = ${second}:${second}
      cat ${scratch.prefix}/file; echo 2 >> ~/mine; mkdir ${scratch.prefix}/new`)})`,
    );
    mountByHand('--scoreboard', scratch.path('state/scoreboard'));
    try {
      await withBuilder({ rsyncMode: 'hardlink' }, async (builder) => {
        const { id: parent } = await buildAs(builder, first, base);
        const before = attributes(scratch.rootfs(parent));
        const { id, output } = await buildAs(builder, second, onTop);
        expect(output).toBe('from-first\n');
        expect(owners(scratch.rootfs(id))).toEqual([`${first}:${first}`]);
        expect(attributes(scratch.rootfs(parent))).toEqual(before);
        const inodes = [parent, id].map((one) => statSync(join(scratch.rootfs(one), 'local/file')).ino);
        expect(inodes[0]).toBe(inodes[1]);
      });
    } finally {
      spawnSync(process.execPath, [
        mainProgram,
        'unmount',
        `--state-dir=${scratch.path('state')}`,
        scratch.prefix,
      ]);
    }
  });

  function mountByHand(...options: string[]): void {
    const args = ['mount', scratch.prefix, `--state-dir=${scratch.path('state')}`, '--daemon', ...options];
    const { status, stderr } = spawnSync(process.execPath, [mainProgram, ...args], { encoding: 'utf8' });
    expect([status, stderr]).toEqual([0, '']);
  }

  /** Of every file, but for how many links it has. */
  function attributes(directory: string): unknown[] {
    return readdirSync(directory, { recursive: true, encoding: 'utf8' })
      .sort()
      .map((path) => {
        const { ino, uid, gid, mode, mtimeMs, size } = lstatSync(join(directory, path));
        return { path, ino, uid, gid, mode, mtimeMs, size };
      });
  }

  it('all build users at once: as many steps as there are users, each alone with its own files', async () => {
    const spec = (i: number) =>
      specOf(
        run(`set -e
        echo ${i} > ~/who; echo ${i} > ${scratch.prefix}/who; touch "$TMPDIR/${i}"
        mkfifo ~/wait; echo started; read < ~/wait; rm ~/wait
        test "$(cat ~/who ${scratch.prefix}/who | sort -u)" = ${i}
        test "$(ls "$TMPDIR")" = ${i}; test ~ = ${scratch.homePath}; id -u`),
      );
    await withBuilder({ builders: 4 }, async (builder) => {
      await runBuild(builder, specOf(), context());
      let started = 0;
      const builds = [0, 1, 2, 3].map((i) =>
        runBuild(builder, spec(i), {
          ...context(),
          onOutput: (output) => {
            if (output === 'started\n' && ++started === 4) letStepsGo();
          },
        }),
      );
      const ended = await Promise.all(builds);
      const uids = ended.map(({ output }) => output.replace('started\n', '').trim());
      expect(uids.sort()).toEqual(poolUids.slice(0, 4).map(String));
      expect(ended.flatMap(({ notes }) => notes.filter((note) => note.startsWith('Waiting')))).toEqual([]);
    });
  });

  /** The steps that run now wait to read from this. */
  function letStepsGo(): void {
    const pipes = `${scratch.path('state/store/result-tmp')}/*/rootfs/wait`;
    spawn('sh', ['-c', `for pipe in ${pipes}; do echo > "$pipe" & done; wait`], { stdio: 'inherit' });
  }

  it('a cache is at its target for two builds at once, and keeps what the first to end left in it', async () => {
    // As clients write targets: below the home path, and below the home.
    const targets = [join(scratch.homePath, '.opam/download-cache'), '~/.opam/download-cache'];
    const cached = (target: string, script: string) =>
      specOf(`(run (cache (downloads (target ${target}))) (shell ${JSON.stringify(script)}))`);
    const seen = async (builder: EmbeddedBuilder, script: string) =>
      (await runBuild(builder, cached(targets[0] ?? '', script), context())).output;
    await withBuilder({}, async (builder) => {
      expect(await seen(builder, 'ls ~/.opam/download-cache; echo 1 > ~/.opam/download-cache/one')).toBe('');
      let started = 0;
      const both = targets.map((target, i) =>
        runBuild(
          builder,
          cached(
            target,
            `set -e; cd ~/.opam/download-cache; test "$(stat -c %u . one | sort -u)" = "$(id -u)"
            cat one; echo ${i} >> one; echo ${i} > from-${i}; mkfifo ~/wait; echo started; read < ~/wait; ls`,
          ),
          {
            ...context(),
            onOutput: (output) => {
              if (output.endsWith('started\n') && ++started === 2) letStepsGo();
            },
          },
        ),
      );
      const outputs = (await Promise.all(both)).map(({ output }) => output);
      expect(outputs).toEqual([0, 1].map((i) => `1\nstarted\nfrom-${i}\none\n`));
      expect(await seen(builder, 'cd ~/.opam/download-cache; cat one from-*')).toMatch(/^1\n([01])\n\1\n$/);
      expect(owners(scratch.path('state/store/cache'))).toEqual(['0:0', `${first}:${first}`]);
    });
  });

  it('a build that waits for a build user says so, and is cancelled while it waits', async () => {
    await withBuilder({}, async (builder) => {
      await runBuild(builder, specOf(), context());
      const held = [first, second].map((uid) => scratch.hold(uid));
      const cancel = new AbortController();
      const spec = specOf(run('echo waited'));
      const waits = async (signal: AbortSignal) => {
        const build = builder.build(spec, { ...context(), signal });
        for await (const event of build) {
          if (
            event.type !== 'note' ||
            event.text !== 'Waiting for a build user: all are busy with other steps'
          )
            continue;
          if (signal === cancel.signal) cancel.abort();
          else held[1]?.release();
        }
        return await build.result;
      };
      expect(await waits(cancel.signal)).toEqual({ status: 'cancelled' });
      expect(await waits(new AbortController().signal)).toMatchObject({ status: 'saved' });
      held[0]?.release();
    });
  });

  it('a uid of the pool that is somebody’s account is refused with one line, whoever is free', async () => {
    const foreign = 7778;
    spawnSync('useradd', ['--uid', String(foreign), '--no-create-home', '--comment', 'Ada', 'ada-of-tests']);
    try {
      await withBuilder({ uid: `${first}-${foreign}`, builders: undefined }, async (builder) => {
        const build = runBuild(builder, specOf(run('echo refused')), context());
        await expect(build).rejects.toMatchObject({
          code: 'NOT_A_BUILD_USER',
          message: `uid ${foreign}: belongs to the account ada-of-tests ("Ada"), not to a build user`,
        });
      });
    } finally {
      spawnSync('userdel', ['--force', 'ada-of-tests']);
    }
  });
});
