import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { ByteString } from '../../src/spec/byte-string.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import { printSpec, printSpecMach } from '../../src/spec/print-spec.ts';
import { SpecError } from '../../src/spec/spec-error.ts';
import type { CacheMount, Op, Spec, User } from '../../src/spec/spec.ts';
import { vectors } from '../helpers/vectors.ts';

// A property that fails prints its seed and the path to replay it with.

const AWKWARD = ['a', 'b', '#', '|', ';', '"', '\\', '\n', '\r', '\t', ' ', '(', ')', '0', 'x', '\0', '\xff'];
const atoms = fc.oneof(
  fc.string({ unit: fc.constantFrom(...AWKWARD), maxLength: 12 }),
  fc.stringMatching(/^[a-z/.]{1,30}$/),
  fc.uint8Array({ maxLength: 12 }).map((array) => Buffer.from(array).toString('latin1')),
) as fc.Arbitrary<ByteString>;

const few = { maxLength: 3 };
const mounts: fc.Arbitrary<CacheMount> = fc.record({
  id: atoms,
  target: atoms,
  buildkitOptions: fc.array(fc.tuple(atoms, atoms), few),
});
const users: fc.Arbitrary<User> = fc.oneof(
  fc.record({ kind: fc.constant('unix' as const), uid: fc.integer(), gid: fc.maxSafeInteger() }),
  fc.record({ kind: fc.constant('windows' as const), name: atoms }),
);

/** An operation where the builds `names` may be copied from. */
function ops(names: readonly ByteString[]): fc.Arbitrary<Op> {
  const builds = names.map((name) => fc.constant({ kind: 'build' as const, name }));
  return fc.oneof(
    fc.record({ op: fc.constant('comment' as const), text: atoms }),
    fc.record({ op: fc.constant('workdir' as const), path: atoms }),
    fc.record({ op: fc.constant('shell' as const), argv: fc.array(atoms, few) }),
    fc.record({
      op: fc.constant('run' as const),
      cache: fc.array(mounts, few),
      network: fc.array(atoms, few),
      secrets: fc.array(mounts, few),
      shell: atoms,
    }),
    fc.record({
      op: fc.constant('copy' as const),
      from: fc.oneof(fc.constant({ kind: 'context' as const }), ...builds),
      src: fc.array(atoms, few),
      dst: atoms,
      exclude: fc.array(atoms, few),
    }),
    fc.record({ op: fc.constant('user' as const), user: users }),
    fc.record({ op: fc.constant('env' as const), name: atoms, value: atoms }),
  );
}

/** A spec nested up to `depth` deep, inside one whose builds so far are `outer`. */
function specs(depth: number, outer: readonly ByteString[] = []): fc.Arbitrary<Spec> {
  const names = depth === 0 ? fc.constant<ByteString[]>([]) : fc.array(atoms, { maxLength: 2 });
  return names.chain((own) =>
    fc.record({
      builds: fc.tuple(
        ...own.map((name, i) =>
          specs(depth - 1, [...outer, ...own.slice(0, i)]).map((spec) => ({ name, spec })),
        ),
      ),
      from: atoms,
      ops: fc.array(ops([...outer, ...own]), { maxLength: 6 }),
    }),
  );
}

const FORMS = [
  ['mach', printSpecMach],
  ['pretty', printSpec],
] as const;

describe.each(FORMS)('the %s form', (_, print) => {
  it('is read back as the spec that it was printed from', () => {
    fc.assert(
      fc.property(specs(2), (spec) => {
        expect(parseSpec(bytesOf(print(spec)))).toEqual(spec);
      }),
    );
  });

  it('of what was read from it is the same', () => {
    fc.assert(
      fc.property(specs(2), (spec) => {
        const printed = print(spec);
        expect(print(parseSpec(bytesOf(printed)))).toBe(printed);
      }),
    );
  });
});

function bytesOf(printed: string): Buffer {
  return Buffer.from(printed, 'latin1');
}

/** @throws anything but the answer or a SpecError of one line. */
function readOrRefuse(source: Uint8Array): Spec | undefined {
  try {
    return parseSpec(source);
  } catch (error) {
    if (!(error instanceof SpecError)) throw error;
    expect(error.message).toMatch(/^spec:[1-9]\d*:[1-9]\d*: [^\n]+$/);
    expect(error.hint).toMatch(/^[^\n]+$/);
    expect(error.underlined ?? '  x\n  ^').toMatch(/^ {2}[^\n]*\n {2} *\^+$/);
    return undefined;
  }
}

const sources = [
  ...vectors.specs.flatMap(({ input, mach, pp }) => [input, mach, pp]),
  ...vectors.errors.map(({ input }) => input),
].map((source) => Buffer.from(source));

describe('whatever the bytes', () => {
  it('a SpecError is all that is thrown', () => {
    const noise = fc.string({
      unit: fc.constantFrom(...AWKWARD, 'from', 'run', 'shell', '((', '#|', '|#', '#;'),
    });
    fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => void readOrRefuse(bytes)));
    fc.assert(
      fc.property(noise, (text) => void readOrRefuse(bytesOf(text))),
      { numRuns: 1000 },
    );
  });

  it('a vector with bytes replaced, removed or repeated is read, and printed as what it is, or refused', () => {
    const mutations = fc.record({
      source: fc.constantFrom(...sources),
      at: fc.nat(),
      length: fc.nat({ max: 8 }),
      insert: fc.oneof(
        fc.uint8Array({ maxLength: 4 }),
        fc.constantFrom('(', ')', '"', '\\', ';', '#|', '|#', '#;', '\r').map((text) => Buffer.from(text)),
      ),
      times: fc.integer({ min: 1, max: 3 }),
    });
    fc.assert(
      fc.property(mutations, ({ source, at, length, insert, times }) => {
        const start = source.length === 0 ? 0 : at % source.length;
        const inserted: Uint8Array[] = Array.from({ length: times }, () => insert);
        const mutated = Buffer.concat([
          source.subarray(0, start),
          ...inserted,
          source.subarray(start + length),
        ]);
        const spec = readOrRefuse(mutated);
        if (spec === undefined) return;
        for (const [, print] of FORMS) expect(parseSpec(bytesOf(print(spec)))).toEqual(spec);
      }),
      { numRuns: 1000 },
    );
  });
});
