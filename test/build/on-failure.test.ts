import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createScratchBuild, type ScratchBuild } from '../helpers/scratch-build.ts';
import { mainProgram, runProgram, whyNoMounts, type CommandAnswer } from '../helpers/scratch-mount.ts';
import { startOnTerminal } from '../helpers/terminal.ts';

const builder = 7801;

describe.skipIf(whyNoMounts !== undefined)('build --on-failure', () => {
  let scratch: ScratchBuild;

  beforeAll(async () => {
    scratch = await createScratchBuild([builder]);
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  /** Without a mount, which takes as long as all the rest. */
  const flags = () => scratch.hostFlags({ mode: 'bind' });

  function run(command: string, args: readonly string[], input?: string): CommandAnswer {
    return runProgram([process.execPath, mainProgram, command, ...args, ...flags()], input);
  }

  const keeping = (spec: string, more: readonly string[] = []) =>
    scratch.build(spec, { mode: 'bind', more: ['--on-failure=keep', ...more] });

  const failing = (script: string, options = '') =>
    `((from base) (env WORD "two words") (workdir sub) (run ${options} (shell ${JSON.stringify(script)})))`;

  /** The id and the place that are told. */
  function keptIn({ stderr }: CommandAnswer): { id: string; directory: string } {
    const [, directory, id] = /is kept in (\S+); look at it: obuilder-fs shell (\w+);/.exec(stderr) ?? [];
    if (directory === undefined || id === undefined) throw new Error(`nothing is kept:\n${stderr}`);
    return { id, directory };
  }

  it('=keep keeps the tree apart from results: a shell starts where the step did, and changes only a copy', async () => {
    const built = await scratch.build(failing(`echo half > ${scratch.prefix}/lib/half; exit 3`), {
      more: ['--on-failure=keep'],
    });
    expect(built.code).toBe(1);
    expect(built.stderr).toContain('failed with exit status 3');
    const { id, directory } = keptIn(built);
    expect(directory).toContain(scratch.path('state/store/'));
    const script = `pwd; echo "$WORD"; cat ${scratch.prefix}/lib/half; rm ${scratch.prefix}/lib/half`;
    const look = run('shell', [id], script);
    expect(look.stdout).toBe(`${scratch.path(`home${builder}`)}/sub\ntwo words\nhalf\n`);
    expect(look.code).toBe(0);
    expect(existsSync(`${directory}/rootfs/local/lib/half`)).toBe(true);
    expect(scratch.results()).not.toContain(id);
    expect(run('delete', [id]).stdout).toBe(`Removing ${id}\n`);
    expect(existsSync(directory)).toBe(false);
  });

  it('=keep keeps no secret, and a step that succeeds later takes it away', async () => {
    writeFileSync(scratch.path('secret'), 'swordfish');
    // The cache tells the second try from the first.
    const spec = failing(
      'cat /tmp/obuilder-secrets/* token; rm cache/first || { touch cache/first; echo first > file; exit 1; }',
      '(cache (c (target cache))) (secrets (token (target token)))',
    );
    const secret = [`--secret=token:${scratch.path('secret')}`];
    const { id, directory } = keptIn(await keeping(spec, secret));
    expect(readFileSync(`${directory}/log`, 'utf8')).toContain('swordfish');
    expect(() => execFileSync('grep', ['-r', 'swordfish', `${directory}/rootfs`])).toThrow('Command failed');
    expect(run('shell', [id], 'cat file token; ls cache /tmp').stdout).toBe('first\n/tmp:\n\ncache:\n');
    const later = await keeping(spec, secret);
    expect(later.stdout).toContain(`Got: "${id}"`);
    expect(existsSync(directory)).toBe(false);
  });

  it('=shell opens a shell where the step failed, before the build fails as it would have', async () => {
    writeFileSync(scratch.path('spec'), failing('echo left > file; echo out; exit 3'));
    const build = [process.execPath, mainProgram, 'build', '-f', scratch.path('spec'), '--on-failure=shell'];
    const line = [...build, ...flags(), scratch.path('context')].join(' ');
    const terminal = startOnTerminal(`${line}; echo "status=$?"`);
    await terminal.untilShown('discarded afterwards');
    expect(terminal.shown()).toMatch(/\nout\r\n[^]*failed with exit status 3/);
    terminal.type(`echo "[$PWD:$WORD:$(cat file)]"; exit 5\n`);
    await terminal.untilShown(`[${scratch.path(`home${builder}`)}/sub:two words:left]`);
    await terminal.untilShown('Build step failed');
    await terminal.untilShown('status=1');
    await terminal.done;
    expect(scratch.leftovers()).toEqual([]);
  });

  it('=shell without a terminal is refused before anything is built', async () => {
    const refused = await scratch.build(failing('exit 1'), { more: ['--on-failure=shell'] });
    expect(refused).toMatchObject({ code: 2, stdout: '' });
    expect(refused.stderr).toMatch(/not a terminal; give --on-failure=keep/);
  });
});
