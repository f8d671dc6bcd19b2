import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createScratchBuild, firstBuilder, type ScratchBuild } from '../helpers/scratch-build.ts';
import { mainProgram, whyNoMounts, type CommandAnswer } from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined)('looking after a store', () => {
  let scratch: ScratchBuild;
  const spec = (...commands: string[]) =>
    `((from base) ${commands.map((one) => `(run (shell ${JSON.stringify(one)}))`).join('\n')})`;

  beforeAll(async () => {
    scratch = await createScratchBuild();
  });
  beforeEach(() => void obuilderFs('clean'));
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  function obuilderFs(...args: string[]): CommandAnswer {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [mainProgram, ...args, `--state-dir=${scratch.stateDir}`],
      { encoding: 'utf8' },
    );
    return { code: status, stdout, stderr };
  }

  const flushFlags = () => [
    `--state-dir=${scratch.stateDir}`,
    `--uid=${firstBuilder}`,
    `--prefix=${scratch.prefix}`,
    `--home-path=${scratch.path(`home${firstBuilder}`)}`,
  ];

  async function build(...commands: string[]): Promise<string[]> {
    const answer = await scratch.build(spec(...commands), { mode: 'bind' });
    expect(answer).toMatchObject({ code: 0 });
    return [...answer.stdout.matchAll(/---> (?:saved as|using) "(\w+)"/g)].map(([, id]) => id ?? '');
  }

  it('prune tells in a dry run what it then removes, as text and as JSON', async () => {
    const ids = await build('echo one', 'echo two');
    const bound = '--before=2099-01-01';
    const told = JSON.parse(obuilderFs('prune', bound, '--dry-run', '--json').stdout) as object;
    expect(told).toMatchObject({ dryRun: true, removed: [...ids].reverse() });
    expect(obuilderFs('prune', bound, '--dry-run').stdout).toMatch(
      /^Would remove \w{64}\n(.*\n)+Would remove 3 items/,
    );
    expect(scratch.results()).toHaveLength(3);
    const pruned = obuilderFs('prune', bound);
    expect(pruned.stdout.split('\n').slice(0, 3)).toEqual([...ids].reverse().map((id) => `Removing ${id}`));
    expect(scratch.results()).toEqual([]);
  });

  it('prune --free stops when there is room, and says when there cannot be', async () => {
    await build('echo one');
    expect(obuilderFs('prune', '--free=1').stdout).toMatch(/^Removed 0 items/);
    expect(obuilderFs('prune', '--before=2020-01-01', '--free=100%').stdout).toMatch(/^Removed 0 items/);
    const all = obuilderFs('prune', '--free=100%');
    expect(all.stdout).toMatch(/\nRemoved 2 items/);
    expect(all.stderr).toMatch(/^obuilder-fs: only .* of .* could be made free: .*\n$/);
  });

  it.each([
    [[], /neither --free nor --before is given/],
    [['--free=lots'], /--free=lots: neither a percentage nor a size/],
    [['--free=101%'], /--free=101%: neither a percentage nor a size/],
    [['--before=soon'], /--before=soon: not a date/],
  ])('prune %j is refused, and nothing is removed', (args, message) => {
    const answer = obuilderFs('prune', ...args);
    expect(answer).toMatchObject({ code: 2, stdout: '' });
    expect(answer.stderr).toMatch(message);
  });

  it('a running build keeps what it needs from a prune', async () => {
    const running = scratch.start(spec('echo one', 'echo begun; while [ ! -e ~/go ]; do sleep 0.05; done'), {
      mode: 'bind',
    });
    await running.untilPrinted('begun\n');
    expect(obuilderFs('prune', '--free=100%').stdout).toMatch(/^Removed 0 items/);
    letGo();
    expect(await running.done).toMatchObject({ code: 0 });
    expect(scratch.results()).toHaveLength(3);
  });

  it('build --prune-threshold makes room by itself, and says what went', async () => {
    await build('echo old');
    const old = scratch.results();
    const index = join(scratch.stateDir, 'store/state/db/db.sqlite');
    const age = `new (require('better-sqlite3'))(process.argv[1]).exec("UPDATE builds SET used = '2020-01-01 00:00:00'")`;
    expect(spawnSync(process.execPath, ['-e', age, index]).status).toBe(0);
    const more = ['--prune-threshold=100%', '--no-sync'];
    const answer = await scratch.build(spec('echo new'), { mode: 'bind', more });
    expect(answer.code).toBe(0);
    const [, gone] = /obuilder-fs: removed (\w+) to make room/.exec(answer.stderr) ?? [];
    expect(old).toContain(gone);
    // Its base was used by the build, and stays.
    expect(scratch.results()).toHaveLength(2);
  });

  it('flush waits for the running step, keeps the next from beginning, and lets the build go on', async () => {
    const running = scratch.start(spec('echo begun; while [ ! -e ~/go ]; do sleep 0.05; done', 'echo after'));
    await running.untilPrinted('begun\n');
    mkdirSync(join(scratch.stateDir, 'store/result-tmp/.removed-left'));
    const flush = spawn(process.execPath, [mainProgram, 'flush', ...flushFlags()]);
    const [waiting] = (await once(createInterface({ input: flush.stderr }), 'line')) as [string];
    expect(waiting).toBe(
      `obuilder-fs: waiting for running steps (pid ${running.pid}); Ctrl-C lets builds go on`,
    );
    const said: string[] = [];
    createInterface({ input: flush.stdout }).on('line', (line) => said.push(line));
    letGo();
    const [code] = (await once(flush, 'close')) as [number];
    expect(code).toBe(0);
    expect(said[0]).toMatch(/^obuilder-fs: removed \d+ leftovers$/);
    expect(said.at(-1)).toBe(`obuilder-fs: ${scratch.prefix} is unmounted`);
    expect(readdirSync(join(scratch.stateDir, 'store/result-tmp'))).not.toContain('.removed-left');
    const answer = await running.done;
    expect(answer).toMatchObject({ code: 0 });
    expect(answer.stdout).toContain('after\n');
  });

  it('a flush that is interrupted changes nothing', async () => {
    const running = scratch.start(
      spec('echo begun; while [ ! -e ~/go ]; do sleep 0.05; done', 'echo after'),
      {
        mode: 'bind',
      },
    );
    await running.untilPrinted('begun\n');
    const flush = spawn(process.execPath, [mainProgram, 'flush', ...flushFlags()]);
    await once(flush.stderr, 'data');
    flush.kill('SIGINT');
    const [code] = (await once(flush, 'close')) as [number];
    expect(code).toBe(130);
    letGo();
    expect(await running.done).toMatchObject({ code: 0 });
  });

  it('store verify puts a store right, and says so', async () => {
    const [, id = ''] = await build('echo one');
    rmSync(join(scratch.stateDir, 'store/result', id), { recursive: true });
    writeFileSync(join(scratch.stateDir, 'store/result-tmp/.removed-x'), '');
    const wrong = obuilderFs('store', 'verify', '--dry-run');
    expect(wrong.code).toBe(1);
    expect(wrong.stdout).toMatch(
      new RegExp(`^problem {3}row-without-result {2}${id}: the row is dropped$`, 'm'),
    );
    expect(obuilderFs('store', 'verify')).toMatchObject({
      code: 0,
      stdout: expect.stringMatching(/^repaired/) as string,
    });
    expect(obuilderFs('store', 'verify').stdout).toBe('The store is in order\n');
  });

  function letGo(): void {
    const [tree = ''] = readdirSync(join(scratch.stateDir, 'store/result-tmp')).filter(
      (name) => !name.startsWith('.'),
    );
    writeFileSync(join(scratch.stateDir, 'store/result-tmp', tree, 'rootfs/go'), '');
  }
});
