import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { unpackSourceTree, vectors } from '../helpers/vectors.ts';

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url));

let scratch: string;
let sourceDirectory: string;

beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'cli-spec-'));
  sourceDirectory = unpackSourceTree(scratch);
  writeFileSync(join(scratch, 'token'), 'hush hush');
});
afterAll(() => {
  rmSync(scratch, { recursive: true });
});

interface Answer {
  status: number | null;
  stdout: string;
  stderr: string;
}

/** Runs the program in the scratch directory. */
function run(args: readonly string[], input = ''): Answer {
  return spawnSync(process.execPath, ['--import', import.meta.resolve('tsx'), MAIN, ...args], {
    cwd: scratch,
    input,
    encoding: 'utf8',
    timeout: 60_000,
  });
}

interface PrintedStep {
  op: string;
  kind: string;
  pre: string | null;
  id: string | null;
}

function idsOf(args: readonly string[], spec: string): PrintedStep[] {
  const { status, stdout, stderr } = run(['spec', 'id', '-', ...args, '--json'], spec);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  return JSON.parse(stdout) as PrintedStep[];
}

describe('spec check', () => {
  it('says nothing about a good spec in a pipe', () => {
    expect(run(['spec', 'check', '-'], '((from base))')).toMatchObject({ status: 0, stdout: '', stderr: '' });
  });

  it('tells file, line and column, and underlines what is wrong', () => {
    writeFileSync(join(scratch, 'bad.spec'), '((from base)\n (run (shell x)\n      (bogus 1)))');
    expect(run(['spec', 'check', 'bad.spec'])).toMatchObject({
      status: 1,
      stdout: '',
      stderr: [
        'obuilder-fs: bad.spec:3:8: unknown field bogus; known here: cache, network, secrets, shell',
        '        (bogus 1)))',
        '         ^^^^^',
        '',
      ].join('\n'),
    });
  });

  it('--json answers with the place', () => {
    const { status, stdout, stderr } = run(['spec', 'check', '--json', '-'], '((from base)');
    expect({ status, stderr }).toEqual({ status: 1, stderr: '' });
    expect(JSON.parse(stdout)).toMatchObject({ file: '<stdin>', valid: false, line: 1, column: 1 });
  });

  it('a file that is not there is one line', () => {
    expect(run(['spec', 'check', 'gone.spec'])).toMatchObject({
      status: 1,
      stderr: 'obuilder-fs: spec gone.spec cannot be read: ENOENT; name a file, or - for standard input\n',
    });
  });
});

describe('spec print and dockerfile', () => {
  const golden = vectors.specs.find(({ name }) => name === 'multiline-everywhere');

  it('print the form that was asked for and nothing else', () => {
    const { input = '', mach = '', pp = '' } = golden ?? {};
    expect(run(['spec', 'print', '--form=mach', '-'], input)).toMatchObject({
      status: 0,
      stdout: `${mach}\n`,
    });
    expect(run(['spec', 'print', '--form=pretty', '-'], input)).toMatchObject({
      status: 0,
      stdout: `${pp}\n`,
    });
  });

  it.each([
    [['dockerfile', '-'], 'FROM base\nRUN é\n\n'],
    [['dockerfile', '-f', '-'], 'FROM base\nRUN é\n\n'],
    [['dockerfile', '--buildkit', '-'], 'FROM base\nRUN --mount=type=cache,id=c,target=/c,uid=0 é\n\n'],
  ])('%j', (args, stdout) => {
    const answer = run(args, '((from base) (run (cache (c (target /c))) (shell é)))');
    expect(answer).toMatchObject({ status: 0, stdout, stderr: '' });
  });
});

describe('spec id', () => {
  it.each(['env-dup-image', 'copy-multi-dup'])('the vector %s', (name) => {
    const golden = vectors.builds.find((build) => build.name === name);
    if (golden === undefined) throw new Error(`no vector ${name}`);
    const env = golden.image_env.flatMap(([variable, value]) => ['--image-env', `${variable}=${value}`]);
    const steps = idsOf([sourceDirectory, ...env], golden.spec);
    const expected = golden.runs[0]?.hashed.map(({ pre, id, kind }) => ({ pre, id, kind }));
    expect(steps.map(({ pre, id, kind }) => ({ pre, id, kind }))).toEqual(expected);
  });

  const secret = '((from base) (run (secrets (s (target /s))) (shell x)))';

  it('secrets are hidden unless they are asked for, and the ids are the same', () => {
    const hidden = idsOf(['--secret', 's:token'], secret);
    const shown = idsOf(['--secret', 's:token', '--show-secrets'], secret);
    expect(hidden[1]?.pre).toContain('(mount_secrets(((value ***)(target /s))))');
    expect(shown[1]?.pre).toContain('(mount_secrets(((value"hush hush")(target /s))))');
    expect(hidden.map(({ id }) => id)).toEqual(shown.map(({ id }) => id));
    expect(run(['spec', 'id', '-', '--secret', 's:token'], secret).stdout).not.toContain('hush');
  });

  it('--ids=v0.5 has its default shell and its way to join a workdir', () => {
    const steps = idsOf(['--ids=v0.5'], '((from base) (workdir src) (run (shell x)))');
    expect(steps[1]?.pre).toContain('(workdir //src)');
    expect(steps[1]?.pre).toContain('(shell(/bin/bash -c))');
  });

  it('what follows a copy of a nested build has no id yet', () => {
    const spec = '((build a ((from x))) (from y) (copy (from (build a)) (src f) (dst g)) (run (shell z)))';
    expect(idsOf([], spec).map(({ op, id }) => [op, id === null])).toEqual([
      ['(from x)', false],
      ['(from y)', false],
      ['(copy (from (build a)) (src f) (dst g))', true],
      ['(run (shell z))', true],
    ]);
  });

  it.each([
    ['a copy without a directory', '((from b) (copy (src f) (dst g)))', /copies from no directory; name the/],
    [
      'a missing secret',
      secret,
      /Couldn't find value for requested secret 's'; give it with --secret s:FILE/,
    ],
    [
      'several items and no directory for them',
      '((from b) (copy (src a b) (dst c)))',
      /copies from no directory/,
    ],
  ])('%s is one line', (_, spec, message) => {
    const { status, stdout, stderr } = run(['spec', 'id', '-'], spec);
    expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd()).not.toContain('\n');
  });
});

describe('wrong usage', () => {
  it.each([
    [['spec']],
    [['spec', 'frobnicate']],
    [['spec', 'check']],
    [['spec', 'print', '--form=x', '-']],
    [['spec', 'id', '-', '--ids=v1']],
    [['spec', 'id', '-', '--image-env', 'novalue']],
    [['dockerfile']],
    [['dockerfile', '-f', 'a', 'b']],
  ])('%j exits 2 with one line', (args) => {
    const { status, stdout, stderr } = run(args, '((from base))');
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    expect(stderr).toMatch(/^obuilder-fs: [^\n]+\n$/);
  });

  it.each([[['spec']], [['spec', 'check']], [['spec', 'print']], [['spec', 'id']], [['dockerfile']]])(
    '%j --help shows examples',
    (args) => {
      expect(run([...args, '--help']).stdout).toContain('Examples:\n  obuilder-fs ');
    },
  );
});
