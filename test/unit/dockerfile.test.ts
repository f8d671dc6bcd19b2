import { describe, expect, it } from 'vitest';
import { ObuilderError } from '../../src/errors.ts';
import { byteStringOf } from '../../src/spec/byte-string.ts';
import { dockerfileOf, type DockerfileOptions } from '../../src/spec/dockerfile.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import { vectors } from '../helpers/vectors.ts';

interface Golden {
  name: string;
  input: string;
  dockerfile_unix: string;
  dockerfile_unix_buildkit: string;
}

const convert = (source: string, options: Partial<DockerfileOptions> = {}): string =>
  dockerfileOf(parseSpec(source), { buildkit: false, ...options });

describe('golden Dockerfiles', () => {
  it.each(vectors.specs as unknown as Golden[])('$name', (golden) => {
    expect(convert(golden.input)).toBe(byteStringOf(golden.dockerfile_unix));
    expect(convert(golden.input, { buildkit: true })).toBe(byteStringOf(golden.dockerfile_unix_buildkit));
  });
});

describe('users', () => {
  it.each([
    ['(uid 1) (gid 2)', 'USER 1:2\nCOPY --chown=1:2 a b\n'],
    ['(uid 0) (gid 0)', 'USER 0:0\nCOPY a b\n'],
    ['(name Zaphod)', 'USER Zaphod\nCOPY a b\n'],
    ['(name ContainerAdministrator)', 'USER ContainerAdministrator\nCOPY a b\n'],
  ])('what %s copies belongs to that user, where it is neither root nor of Windows', (user, lines) => {
    expect(convert(`((from x) (user ${user}) (copy (src a) (dst b)))`)).toBe(`FROM x\n${lines}`);
  });

  it('a nested build starts as root again', () => {
    const source =
      '((build a ((from x) (user (uid 1) (gid 1)))) (from y) (copy (from (build a)) (src f) (dst g)))';
    expect(convert(source)).toBe('FROM x as a\nUSER 1:1\n\nFROM y\nCOPY --from=a f g\n');
  });

  it('a cache of a user without a number is refused with BuildKit only', () => {
    const source = '((from x) (user (name Z)) (run (cache (c (target /c))) (shell y)))';
    expect(convert(source)).toBe('FROM x\nUSER Z\nRUN y\n');
    expect(() => convert(source, { buildkit: true })).toThrow(ObuilderError);
  });
});

describe('details', () => {
  it('secrets come before caches, each with the options of its own', () => {
    const source =
      '((from x) (user (uid 5) (gid 6)) (run (cache (c (target /c) (buildkit_options ((sharing locked))))) (secrets (s (target /s) (buildkit_options ((required true))))) (shell y)))';
    expect(convert(source, { buildkit: true })).toBe(
      'FROM x\nUSER 5:6\nRUN --mount=type=secret,id=s,target=/s,uid=5,required=true --mount=type=cache,id=c,target=/c,uid=5,sharing=locked y\n',
    );
  });

  it('Windows escapes with a backquote and says so first', () => {
    const source =
      '((from x) (run (shell "a\n  b")) (env A "`\\\\\\"") (user (name Z)) (copy (src a) (dst C:\\b)))';
    expect(convert(source, { style: 'windows' })).toBe(
      '#escape=`\nFROM x\nRUN a `\n    b\nENV A="``\\`""\nUSER Z\nCOPY a C:\\b\n',
    );
  });

  it('20,000 nested builds are converted', () => {
    const depth = 20_000;
    const source = `${'((build a'.repeat(depth)}((from x))${')(from y))'.repeat(depth)}`;
    expect(convert(source).match(/^FROM /gm)).toHaveLength(depth + 1);
  });
});
