import { spawnSync } from 'node:child_process';
import { existsSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createScratchBuild, firstBuilder, type ScratchBuild } from '../helpers/scratch-build.ts';
import { mainProgram, whyNoMounts, type CommandAnswer } from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined)("OBuilder's commands", () => {
  let scratch: ScratchBuild;
  const spec = (...ops: string[]) => `((from base) ${ops.join('\n')})`;
  const run = (script: string) => `(run (shell ${JSON.stringify(script)}))`;

  beforeAll(async () => {
    scratch = await createScratchBuild();
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  function obuilderFs(...args: string[]): CommandAnswer {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [mainProgram, ...args, `--state-dir=${scratch.stateDir}`],
      { encoding: 'utf8', maxBuffer: 2 ** 26 },
    );
    return { code: status, stdout, stderr };
  }

  const hostFlags = () => [
    `--uid=${firstBuilder}`,
    `--fuse-path=${scratch.prefix}`,
    `--home-path=${scratch.path(`home${firstBuilder}`)}`,
  ];

  /** Builds and answers the ids of its results, in order. */
  async function idsOf(text: string, ...more: string[]): Promise<string[]> {
    const answer = await scratch.build(text, { mode: 'bind', more });
    expect(answer).toMatchObject({ code: 0 });
    const ids = [...answer.stdout.matchAll(/---> (?:saved as|using) "(\w+)"/g)].map(([, id]) => id ?? '');
    expect(answer.stdout.trimEnd().split('\n').at(-1)).toBe(`Got: "${ids.at(-1)}"`);
    return ids;
  }

  it('log prints what a step printed, byte for byte, and says when there is no such result', async () => {
    const [, id = ''] = await idsOf(spec(run(String.raw`printf 'one\377\ntwo'`)));
    const { stdout } = spawnSync(process.execPath, [
      mainProgram,
      'log',
      id,
      `--state-dir=${scratch.stateDir}`,
    ]);
    expect(stdout).toEqual(Buffer.from('one\xff\ntwo', 'latin1'));
    const missing = obuilderFs('log', '0'.repeat(64));
    expect(missing).toMatchObject({ code: 1, stdout: '' });
    expect(missing.stderr).toMatch(/^obuilder-fs: 0+: no such result in the store; .*\n$/);
  });

  it('log prints a log that is larger than a pipe', async () => {
    const [, id = ''] = await idsOf(spec(run('seq 300000')));
    const printed = obuilderFs('log', id).stdout.split('\n');
    expect([printed.length, printed.at(-2)]).toEqual([300_001, '300000']);
  });

  it('store list, show and du tell results, parents, uses and sizes', async () => {
    const [base = '', id = ''] = await idsOf(spec(run('head -c 3000000 /dev/zero > zeros')));
    const list = JSON.parse(obuilderFs('store', 'list', '--json').stdout) as { results: object[] };
    expect(list.results).toContainEqual(expect.objectContaining({ id, parent: base, children: 0 }));
    const show = JSON.parse(obuilderFs('store', 'show', base, '--json').stdout) as { children: string[] };
    expect(show).toMatchObject({ id: base, parent: null, logBytes: 0 });
    expect(show.children).toContain(id);
    const du = JSON.parse(obuilderFs('store', 'du', '--json').stdout) as {
      totalBytes: number;
      results: Record<string, number>;
    };
    expect(du.results[id]).toBeGreaterThan(3_000_000);
    expect(du.totalBytes).toBeGreaterThan(du.results[id] ?? 0);
    expect(obuilderFs('store', 'list').stdout).toContain(`${id}  used 2`);
    expect(obuilderFs('store', 'show', id).stdout).toContain(`parent    ${base}\n`);
    expect(obuilderFs('store', 'du').stdout).toMatch(new RegExp(`2\\.9 MiB result ${id}\\n`));
  });

  it('delete removes what was made from a result first, and takes the flags that OBuilder takes', async () => {
    const [base = '', one = '', two = ''] = await idsOf(spec(run('echo one'), run('echo two')));
    const answer = obuilderFs('delete', one, `--store=rsync:${scratch.stateDir}/store`, '--uid=1000');
    expect(answer).toMatchObject({ code: 0, stdout: `Removing ${two}\nRemoving ${one}\n`, stderr: '' });
    expect(scratch.results()).toContain(base);
    expect(obuilderFs('delete', one)).toMatchObject({ code: 0, stdout: '' });
    expect(obuilderFs('delete', 'nonsense')).toMatchObject({ code: 1 });
  });

  it('clean removes every result, also those that were just used, and leaves the caches', async () => {
    const cached = '(run (cache (c (target ~/c))) (shell "echo kept > ~/c/file"))';
    const ids = await idsOf(spec(cached));
    const answer = obuilderFs('clean');
    expect(answer.code).toBe(0);
    const lines = answer.stdout.trimEnd().split('\n');
    expect(lines.at(-1)).toBe(`Removed ${lines.length - 1} items`);
    expect(lines).toEqual(expect.arrayContaining(ids.map((id) => `Removing ${id}`)));
    expect(scratch.results()).toEqual([]);
    expect(existsSync(`${scratch.stateDir}/store/cache/c-c/file`)).toBe(true);
    expect(obuilderFs('clean').stdout).toBe('Removed 0 items\n');
  });

  it('commands on a store that is not there make none', () => {
    const missing = `--store=rsync:${scratch.path('typo')}`;
    for (const command of [
      ['clean'],
      ['delete', '0'.repeat(64)],
      ['store', 'list'],
      ['log', '0'.repeat(64)],
    ]) {
      const answer = obuilderFs(...command, missing);
      expect(answer).toMatchObject({ code: 1, stdout: '' });
      expect(answer.stderr).toMatch(/typo: there is no store; .*\n$/);
    }
    expect(existsSync(scratch.path('typo'))).toBe(false);
  });

  it('healthcheck runs a step each time and leaves nothing in the store', () => {
    const before = scratch.results();
    for (let i = 0; i < 2; i++) {
      expect(obuilderFs('healthcheck', ...hostFlags())).toEqual({
        code: 0,
        stdout: 'Healthcheck passed\n',
        stderr: '',
      });
    }
    expect(scratch.results()).toEqual(before);
  });

  it('healthcheck says what is wrong', () => {
    const answer = obuilderFs('healthcheck', ...hostFlags(), '--home-path=/etc');
    expect(answer.code).not.toBe(0);
    expect(answer.stdout).toBe('');
  });

  it("takes v0.5's flags: --fallback is ignored with a note, --no-fuse leaves the machine's prefix in view", () => {
    const steps = spec(
      run(`cat ${scratch.prefix}/host; grep -c " ${scratch.prefix} fuse" /proc/self/mounts`),
    );
    const child = spawnSync(
      process.execPath,
      [
        ...[mainProgram, 'build', '-f', '-', `--store=rsync:${scratch.path('v0.5')}`, '--rsync-mode=copy'],
        ...[...hostFlags(), '--fallback=/nonexistent', `--scoreboard=${scratch.path('links')}`, '--no-fuse'],
        ...[`--state-dir=${scratch.stateDir}`, scratch.path('context')],
      ],
      { encoding: 'utf8', input: steps },
    );
    expect(child.stdout).toContain('host0\n');
    expect(child.stderr).toContain('obuilder-fs: --fallback is not needed and ignored\n');
    const both = obuilderFs('healthcheck', '--no-fuse', '--prefix-mode=tree');
    expect(both).toMatchObject({ code: 2, stdout: '' });
    expect(both.stderr).toContain('--no-fuse and --prefix-mode=tree');
  });

  it("--ids=v0.5 names results as v0.5 did, so both versions' results live in one store", async () => {
    const steps = spec('(workdir src)', run('pwd'));
    const [, head] = await idsOf(steps);
    const [, old] = await idsOf(steps, '--ids=v0.5');
    expect(old).not.toBe(head);
    const again = await scratch.build(steps, { mode: 'bind', more: ['--ids=v0.5'] });
    expect(again.stdout).toContain(`---> using "${old}" from cache`);
  });

  it.each(['hardlink', 'hardlink_unsafe'])('--rsync-mode=%s shares what did not change', async (mode) => {
    const store = `--store=rsync:${scratch.path(mode)}`;
    const ids = await idsOf(
      spec(run('head -c 3000000 /dev/urandom > zeros'), run('echo more')),
      store,
      `--rsync-mode=${mode}`,
    );
    const du = JSON.parse(obuilderFs('store', 'du', '--json', store).stdout) as { totalBytes: number };
    expect(ids).toHaveLength(3);
    // The file once, and the store’s reserve of 8 MiB.
    expect(du.totalBytes).toBeLessThan(13_000_000);
  });

  it('a secret is in no log, error or process list', async () => {
    const secret = 'correct-horse-battery-staple';
    writeFileSync(scratch.path('token'), secret);
    const target = `${scratch.path(`home${firstBuilder}`)}/token`;
    const build = scratch.start(
      spec(
        `(run (secrets (token (target ${target}))) (shell "wc -c < ~/token; echo ready; while [ ! -e ~/go ]; do sleep 0.05; done; exit 7"))`,
      ),
      { mode: 'tree', more: [`--secret=token:${scratch.path('token')}`] },
    );
    await build.untilPrinted('ready\n');
    const processes = spawnSync(
      'sh',
      ['-c', 'cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr "\\0" "\\n"'],
      { encoding: 'utf8', maxBuffer: 2 ** 28 },
    );
    expect(processes.stdout).toContain('sleep');
    expect(processes.stdout).not.toContain(secret);
    const found = spawnSync('grep', ['-rl', secret, `${scratch.stateDir}/store`, `${scratch.stateDir}/run`]);
    expect(found.stdout.toString()).toBe('');
    build.kill('SIGINT');
    const answer = await build.done;
    expect(answer.stdout).toContain(`${secret.length}\n`);
    expect(answer.stdout + answer.stderr).not.toContain(secret);
  });

  it('a secret given in place of ID:FILE is not repeated', async () => {
    const answer = await scratch.build(spec(run('true')), { more: ['--secret=token=hunter2'] });
    expect(answer.code).toBe(2);
    expect(answer.stderr).toBe('obuilder-fs: --secret: not ID:FILE; as in --secret=token:/run/token\n');
  });

  it('a build that waits for another process says for which, and takes its result', async () => {
    const steps = spec(run('echo begun; while [ ! -e ~/go ]; do sleep 0.05; done'));
    const first = scratch.start(steps, { mode: 'bind' });
    await first.untilPrinted('begun\n');
    const second = scratch.start(steps, { mode: 'bind' });
    await second.untilPrinted('Waiting for another process that is making this result (pid ');
    const tree = spawnSync('sh', ['-c', `touch "$(echo ${scratch.stateDir}/store/result-tmp/*)/rootfs/go"`]);
    expect(tree.status).toBe(0);
    expect((await first.done).stdout).toContain('saved as');
    const answer = await second.done;
    expect(answer.stdout).toContain('begun\n');
    expect(answer.stdout).not.toContain('saved as');
  });
});
