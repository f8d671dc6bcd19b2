import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { byteStringOf, type ByteString } from '../../src/spec/byte-string.ts';
import {
  parseSexp,
  printHum,
  printInline,
  printMach,
  SexpError,
  sexpOf,
  type Sexp,
  type SexpNode,
} from '../../src/spec/sexp.ts';

const bytes = (text: string) => text as ByteString;
const read = (source: string) => sexpOf(parseSexp(bytes(source)));
const mach = (source: string) => printMach(read(source));

describe('reading', () => {
  it.each([
    ['a"b"c in a list is three atoms', '(a"b"c)', '(a b c)'],
    ['a block comment nests', '(a #| x #| y |# z |# b)', '(a b)'],
    ['a string in a block comment hides its marks', '(#| "|#" |# a)', '(a)'],
    ['#; skips the next S-expression, with its comments', '(#; ; no\n (b c) d)', '(d)'],
    ['two #; skip two S-expressions', '(#;#; b c d)', '(d)'],
    ['#; inside an atom ends the atom and comments out the line', '(a#;b\n)', '(a#)'],
    ['an atom may start with # or |', '(# ## #a | || |a)', '(# ## #a | || |a)'],
    ['a backslash in an unquoted atom is itself', '(a\\nb)', '("a\\\\nb")'],
    ['known escapes', '("\\n\\t\\b\\r\\"\\\\\\\'")', '("\\n\\t\\b\\r\\"\\\\\'")'],
    ['unknown escapes keep their backslash', '("\\q\\ ")', '("\\\\q\\\\ ")'],
    ['decimal and hexadecimal escapes', '("\\065\\x4a\\x4B5")', '(AJK5)'],
    ['a continuation swallows the blanks that follow', '("a\\\n \t b")', '(ab)'],
    ['a continuation at a carriage return and newline too', '("a\\\r\n  b")', '(ab)'],
    ['an escaped lone carriage return loses its backslash only', '("a\\\r b")', '("a\\r b")'],
    ['form feed is blank, vertical tab is not', '(a\fb\vc)', '(a"b\\011c")'],
    ['comments may follow the S-expression', '(a) ; x\n#| y |# #;z\n', '(a)'],
    ['bytes above 126 are quoted by number', '(\xe9\x7f)', '("\\233\\127")'],
    ['an atom alone', 'a', 'a'],
  ])('%s', (_, source, expected) => {
    expect(mach(source)).toBe(expected);
  });

  it.each([
    ['', 0],
    ['; only a comment', 0],
    ['(a', 0],
    ['((a)', 0],
    ['(a))', 3],
    ['(a) b', 4],
    ['(a #;)', 3],
    ['(a) #;', 4],
    ['(a|#b)', 2],
    ['(a#|b)', 2],
    ['(|#)', 1],
    ['(#| a)', 1],
    ['("a)', 1],
    ['("\\256")', 3],
    ['("\\25")', 3],
    ['("\\x4")', 4],
    ['(a\rb)', 2],
    ['(a ; b\rc\n)', 6],
  ])('refuses %j at byte %i', (source, offset) => {
    expect(() => read(source)).toThrow(SexpError);
    try {
      read(source);
    } catch (error) {
      expect((error as SexpError).offset).toBe(offset);
    }
  });

  it('knows where each atom and list begins and ends, without what was skipped', () => {
    const source = ' (a "b\\n" #;(x y) (c))';
    const tree = parseSexp(bytes(source));
    const pieces = (node: SexpNode): string[] => [
      source.slice(tree.offset(node), tree.end(node)),
      ...(tree.isList(node) ? tree.children(node).flatMap(pieces) : []),
    ];
    expect(pieces(tree.root)).toEqual([source.slice(1), 'a', '"b\\n"', '(c)', 'c']);
    expect(tree.offset(tree.root)).toBe(1);
  });
});

const atoms = fc.oneof(
  fc.string({
    unit: fc.constantFrom('a', 'b', '#', '|', ';', '"', '\\', '\n', '\r', ' ', '(', ')', '0', 'x'),
  }),
  fc.uint8Array({ maxLength: 12 }).map((array) => Buffer.from(array).toString('latin1')),
) as fc.Arbitrary<ByteString>;

const sexps = fc.letrec<{ sexp: Sexp }>((tie) => ({
  sexp: fc.oneof({ maxDepth: 6 }, atoms, fc.array(tie('sexp'), { maxLength: 6 })),
})).sexp;

describe('printing', () => {
  it.each([
    ['mach', printMach],
    ['hum', printHum],
    ['inline', printInline],
  ])('what %s prints is read back as it was', (_, print) => {
    // A failure prints the seed and the path to replay it with.
    fc.assert(
      fc.property(sexps, (sexp) => {
        expect(sexpOf(parseSexp(bytes(print(sexp))))).toEqual(sexp);
      }),
    );
  });

  it('mach puts a space between two unquoted atoms only', () => {
    expect(mach('(a b "c d" e (f) "" g)')).toBe('(a b"c d"e(f)""g)');
  });

  it('hum breaks lines at 78 bytes and indents by one', () => {
    const item = 'x'.repeat(36);
    expect(printHum(read(`(${item} ${item} y)`))).toBe(`(${item} ${item} y)`);
    expect(printHum(read(`(${item} ${item} yyy)`))).toBe(`(${item} ${item}\n yyy)`);
  });

  it('writes the env file of a base image as OBuilder does', () => {
    const env = [
      ['PATH', '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'],
      ['A', 'b c'],
    ];
    const sexp = [['env', env.map(([name = '', value = '']) => [byteStringOf(name), byteStringOf(value)])]];
    expect(printHum(sexp as Sexp)).toBe(
      '((env\n  ((PATH /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)\n   (A "b c"))))',
    );
  });
});

describe('size', () => {
  it('survives 50,000 nested lists', () => {
    const source = `${'('.repeat(50_000)}a${')'.repeat(50_000)}`;
    expect(mach(source)).toBe(source);
    expect(printHum(read(source))).toContain('a)');
  });

  it('reads and prints 10 MiB', () => {
    const source = `(${'(env NAME "a value")'.repeat(500_000)})`;
    expect(mach(source)).toHaveLength(source.length - 500_000);
  });

  it('reads a string of 10 MiB full of escapes', () => {
    const source = `("${'\\n\\065'.repeat(1_800_000)}")`;
    expect(read(source)).toEqual(['\nA'.repeat(1_800_000)]);
  });
});
