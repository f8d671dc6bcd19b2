import { describe, expect, it } from 'vitest';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import { SpecError } from '../../src/spec/spec-error.ts';
import type { Spec } from '../../src/spec/spec.ts';
import { vectors } from '../helpers/vectors.ts';

function refusal(source: string | Uint8Array): SpecError {
  try {
    parseSpec(source, 'a.spec');
  } catch (error) {
    expect(error).toBeInstanceOf(SpecError);
    return error as SpecError;
  }
  throw new Error('the spec was accepted');
}

describe('refusals', () => {
  it.each(vectors.errors)('$name is one line with its place and a remedy', ({ input }) => {
    const { code, message, hint } = refusal(input);
    expect(code).toBe('BAD_SPEC');
    expect(message).toMatch(/^a\.spec:[1-9]\d*:[1-9]\d*: \S[^\n]*$/);
    expect(hint).toMatch(/^\S[^\n]*$/);
  });

  it.each([
    ['((from base)\n (run (shell x)\n      (bogus 1)))', 'a.spec:3:8: unknown field bogus'],
    ['((from base)\n (comment "é") (nope))', 'a.spec:2:17: unknown operation nope'],
    ['((from base)\n (env A "b)', 'a.spec:2:9: this string is never closed'],
    ['()', 'a.spec:1:1: this spec has no (from IMAGE)'],
    ['((from a) (from b))', 'a.spec:1:12: unknown operation from'],
    ['((from a) (RUN (shell x)))', 'a.spec:1:12: unknown operation RUN'],
    ['((from a) (Env A 1))', 'a.spec:1:11: (Env A 1) has its fields outside a list'],
    ['((from a) (run (shell a) (shell b)))', 'a.spec:1:26: a second field shell'],
    ['((from a) (run))', 'a.spec:1:11: (run) has no shell'],
    ['((from a) (user (gid 1) (uid 2)))', 'a.spec:1:11: (user (gid 1) (uid 2)) names no user'],
    ['((from a) (user (uid x) (gid 2)))', 'a.spec:1:22: x is no integer'],
    ['((from a) (copy (from Context) (src a) (dst b)))', 'a.spec:1:23: Context is nothing to copy from'],
    ['((from a) (run (cache (c (id d) (target /t))) (shell x)))', 'a.spec:1:27: unknown field id'],
    ['((from a) (comment (a)))', 'a.spec:1:20: (a) is a list, where one value is expected'],
  ])('%j', (source, message) => {
    expect(refusal(source).message).toBe(message);
  });

  it('tells of a byte order mark, which nobody sees', () => {
    expect(refusal('\ufeff((from a))')).toMatchObject({
      message: 'a.spec:1:2: a second S-expression, where only one is expected',
      hint: 'the first is a byte order mark: save the file without it',
    });
    expect(refusal('x ((from a))').hint).toBe('put everything in one list, or remove the rest');
  });

  it('quotes long pieces of the source only in part', () => {
    expect(refusal(`((from a) (${'x '.repeat(1000)}))`).message.length).toBeLessThan(200);
    expect(refusal(`((from a) ((${'x '.repeat(1000)})))`).message.length).toBeLessThan(200);
  });

  it.each([
    ['((from a) (nope))', ['  ((from a) (nope))', '             ^^^^']],
    ['((from a)\n\t(comment "é" b))', ['   (comment "é" b))', '   ^^^^^^^^^^^^^^^']],
    ['((from a)\n (user (uid 1)\n       (name b)))', ['   (user (uid 1)', '   ^^^^^^^^^^^^^']],
    ['((from a) (comment "b\n', ['  ((from a) (comment "b', '                     ^']],
    ['((from a)))', ['  ((from a)))', '            ^']],
    [
      '((from a) (comment \x1b[31m "b" "c"))',
      ['  ((from a) (comment  [31m "b" "c"))', '            ^^^^^^^^^^^^^^^^^^^^^^^'],
    ],
    ['((from "日本") (nope))', ['  ((from "日本") (nope))', '                  ^^^^']],
    ['((from "e\u0301 👍") (nope))', ['  ((from "e\u0301 👍") (nope))', '                  ^^^^']],
    ['((from a) (no\u202epe))', ['  ((from a) (no pe))', '             ^^^^^']],
    [`((from "${'é'.repeat(40)}x") (nope))`, [`  …${'é'.repeat(17)}x") (nope))`, `${' '.repeat(25)}^^^^`]],
  ])('%j is shown with what is wrong underlined', (source, lines) => {
    expect(refusal(source).underlined?.split('\n')).toEqual(lines);
  });

  it('of a long line only the part around the fault is shown', () => {
    const blanks = ' '.repeat(500);
    const [line = '', carets = ''] =
      refusal(`((from a) x${blanks}(nope)${blanks})`).underlined?.split('\n') ?? [];
    expect(line.length).toBeLessThan(110);
    expect(line.startsWith('  …') || line.startsWith('  ((from a) x')).toBe(true);
    expect(carets.trim()).toMatch(/^\^+$/);
  });

  it('of a blank line nothing is shown', () => {
    expect(refusal('').underlined).toBeUndefined();
  });

  it.each([
    [
      'a spec of 10 MiB that is wrong at its end',
      `((from a)${'(run(shell "echo 1"))'.repeat(500_000)}(bogus))`,
    ],
    ['10 MiB of lists that are never closed', '('.repeat(10_000_000)],
    ['10 MiB of atoms where a stage is expected', `((${'a '.repeat(5_000_000)}))`],
    ['10 MiB of lines that end in the middle of a string', `((from a)(comment "${'x\n'.repeat(5_000_000)}`],
    [
      'a copy of 5,000,000 files from an unknown build',
      `((from a)(copy (from (build t)) (src ${'a '.repeat(5_000_000)}) (dst /)))`,
    ],
    [
      'a copy from none of 10,000 builds',
      `(${Array.from({ length: 10_000 }, (_, i) => `(build b${i} ((from x)))`).join('')}(from a)(copy (from (build t)) (src a) (dst /)))`,
    ],
  ])('%s is one short error', (_, source) => {
    expect(refusal(source).message.length).toBeLessThan(800);
  });

  it('a source that is no UTF-8 is read as bytes', () => {
    const spec = parseSpec(Buffer.from('((from "\xff") (env A \xfe))', 'latin1'));
    expect(spec).toEqual({ builds: [], from: '\xff', ops: [{ op: 'env', name: 'A', value: '\xfe' }] });
  });
});

describe('scope', () => {
  const copy = (name: string) => `(copy (from (build ${name})) (src a) (dst b))`;

  it.each([
    ['a nested build of the same spec', `((build t ((from x))) (from y) ${copy('t')})`],
    ['an earlier sibling', `((build a ((from x))) (build b ((from y) ${copy('a')})) (from z))`],
    [
      'an earlier build of an outer spec',
      `((build a ((from x))) (build b ((build c ((from y) ${copy('a')})) (from y))) (from z))`,
    ],
    [
      'a later build of the same name',
      `((build a ((from x))) (build a ((from y) ${copy('a')})) (from z) ${copy('a')})`,
    ],
    [
      'an outer build that an inner one hid',
      `((build a ((from x))) (build b ((build a ((from x))) (from y))) (from z) ${copy('a')})`,
    ],
  ])('a copy may come from %s', (_, source) => {
    expect(parseSpec(source).from).toBeDefined();
  });

  it.each([
    ['a build that is defined later', `((build a ((from x) ${copy('b')})) (build b ((from x))) (from z))`],
    ['itself', `((build a ((from x) ${copy('a')})) (from z))`],
    ['a build inside another', `((build a ((build b ((from x))) (from x))) (from z) ${copy('b')})`],
  ])('a copy may not come from %s', (_, source) => {
    expect(refusal(source).message).toMatch(/Unknown build "[ab]" in \(copy /);
  });

  it.each([
    [[], ''],
    [['a'], ' Did you mean "a" ?'],
    [['b', 'a'], ' Did you mean either "a" or "b" ?'],
    [['c', 'b', 'a', 'a'], ' Did you mean one of "a", "b" or "c" ?'],
  ])('with %j in scope the message says so', (names, question) => {
    const builds = names.map((name) => `(build ${name} ((from x)))`).join(' ');
    expect(refusal(`(${builds} (from base) ${copy('zz')})`).message).toBe(
      `a.spec:1:${builds.length + 15}: Unknown build "zz" in (copy (from (build zz)) (src a) (dst b)).${question}`,
    );
  });
});

describe('accepted forms', () => {
  it('every field of run and copy', () => {
    const source = `((from base)
      (run (cache (c (target /t) (buildkit_options ((sharing locked))))) (network host) (secrets (s (target /s))) (shell x))
      (copy (from context) (src a b) (dst c/) (exclude .git)))`;
    expect(parseSpec(source).ops).toEqual([
      {
        op: 'run',
        cache: [{ id: 'c', target: '/t', buildkitOptions: [['sharing', 'locked']] }],
        network: ['host'],
        secrets: [{ id: 's', target: '/s', buildkitOptions: [] }],
        shell: 'x',
      },
      { op: 'copy', from: { kind: 'context' }, src: ['a', 'b'], dst: 'c/', exclude: ['.git'] },
    ]);
  });

  it.each([
    ['1000', 1000],
    ['-1', -1],
    ['+1', 1],
    ['0x10', 16],
    ['0o17', 15],
    ['0b101', 5],
    ['0u12', 12],
    ['1_000', 1000],
    ['0x7fffffffffffffff', -1],
  ])('uid %s is %i', (written, uid) => {
    const [op] = parseSpec(`((from a) (user (uid ${written}) (gid 0)))`).ops;
    expect(op).toEqual({ op: 'user', user: { kind: 'unix', uid, gid: 0 } });
  });

  it.each(['_1', '0x', '""', '1e3', '1.0', '4611686018427387904'])('uid %s is none', (written) => {
    expect(refusal(`((from a) (user (uid ${written}) (gid 0)))`).message).toContain('is no integer');
  });

  it('20,000 nested builds', () => {
    const depth = 20_000;
    let spec: Spec | undefined = parseSpec(
      `${'((build a '.repeat(depth)}((from x))${') (from y))'.repeat(depth)}`,
    );
    let found = 0;
    for (; spec !== undefined; spec = spec.builds[0]?.spec) found++;
    expect(found).toBe(depth + 1);
  });

  it('10 MiB of operations', () => {
    const count = 200_000;
    const copy = '(copy (from (build t)) (src a b) (dst /destination/))';
    expect(parseSpec(`((build t ((from x))) (from y) ${copy.repeat(count)})`).ops).toHaveLength(count);
  });
});
