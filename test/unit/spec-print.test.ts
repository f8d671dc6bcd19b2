import { describe, expect, it } from 'vitest';
import { byteStringOf } from '../../src/spec/byte-string.ts';
import { parseSpec } from '../../src/spec/parse-spec.ts';
import {
  buildHeading,
  fromHeading,
  opHeading,
  printOp,
  printSpec,
  printSpecMach,
  specSexp,
} from '../../src/spec/print-spec.ts';
import { printHum } from '../../src/spec/sexp.ts';
import { vectors } from '../helpers/vectors.ts';

const onlyOp = (op: string) => {
  const [first] = parseSpec(`((from base) ${op})`).ops;
  if (first === undefined) throw new Error('no op');
  return first;
};

describe('golden specs', () => {
  it.each(vectors.specs)('$name', ({ input, mach, pp, to_string_hum, ops_pp }) => {
    const spec = parseSpec(input);
    expect(printSpecMach(spec)).toBe(mach);
    expect(printSpec(spec)).toBe(pp);
    expect(printHum(specSexp(spec))).toBe(to_string_hum);
    expect(spec.ops.map(printOp)).toEqual(ops_pp);
  });

  it.each(vectors.specs)('$name is the same spec after being printed', ({ mach, pp }) => {
    expect(printSpecMach(parseSpec(mach))).toBe(mach);
    expect(printSpecMach(parseSpec(pp))).toBe(mach);
  });

  it.each(vectors.copy_pp_widths)(
    'a copy to $dst_length bytes in $workdir stays on one line up to column 78',
    ({ workdir, heading, spec_pp, nested_spec_pp }) => {
      const spec = parseSpec(spec_pp);
      expect(printSpec(spec)).toBe(spec_pp);
      expect(printSpec(parseSpec(nested_spec_pp))).toBe(nested_spec_pp);
      expect(spec.ops.map((op) => opHeading(byteStringOf(workdir), op))).toEqual([heading]);
    },
  );
});

describe('printing', () => {
  it('drops what is empty or the default, and keeps buildkit options', () => {
    const source = `((from b) (copy (from context) (src a) (dst b) (exclude))
      (run (cache (c (buildkit_options ((k v))) (target /t)) (d (target /t) (buildkit_options ()))) (shell x)))`;
    expect(printSpecMach(parseSpec(source))).toBe(
      '((from b)(copy(src a)(dst b))(run(cache(c(target /t)(buildkit_options((k v))))(d(target /t)))(shell x)))',
    );
  });

  it('only copy breaks lines for their length', () => {
    const long = 'x'.repeat(90);
    expect(printOp(onlyOp(`(env NAME ${long})`))).toBe(`(env NAME ${long})`);
    expect(printOp(onlyOp(`(run (cache (c (target ${long}))) (shell x))`))).toBe(
      `(run (cache (c (target ${long})))\n     (shell x))`,
    );
  });

  it('a heading whose workdir leaves no room starts its fields on a line of their own, as OBuilder does', () => {
    const workdir = `/${'w'.repeat(69)}`;
    expect(opHeading(byteStringOf(workdir), onlyOp('(run (network host) (shell x))'))).toBe(
      `${workdir}: (run \n(network host)\n(shell x))`,
    );
    expect(opHeading(byteStringOf(workdir), onlyOp('(env A b)'))).toBe(`${workdir}: \n(env A b)`);
  });

  it('bytes outside ASCII are escaped in operations and headings, and kept in the workdir of a heading', () => {
    expect(opHeading(byteStringOf('/é'), onlyOp('(comment é)'))).toBe('/é: (comment "\\195\\169")');
    expect(fromHeading(byteStringOf('a b'))).toBe('(from "a b")');
    expect(fromHeading(byteStringOf('base'))).toBe('(from base)');
    expect(buildHeading(byteStringOf('a "é"'))).toBe('(build "a \\"\\195\\169\\"" …)');
  });

  it('20,000 nested builds are printed', () => {
    const depth = 20_000;
    const mach = `${'((build a'.repeat(depth)}((from x))${')(from y))'.repeat(depth)}`;
    expect(printSpecMach(parseSpec(mach))).toBe(mach);
    expect(printSpec(parseSpec(mach)).length).toBeGreaterThan(mach.length);
  });
});
