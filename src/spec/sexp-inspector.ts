import type { ByteString } from './byte-string.ts';
import { printInline, SexpError, sexpOf, type SexpNode, type SexpTree } from './sexp.ts';

/** Names of the fields that a list may have, with whether each has exactly one value, as `(dst PATH)`, or any number, as `(src PATH…)`. */
export type KnownFields = readonly (readonly [name: string, arity: 'one' | 'many'])[];

/** The values of each known field that is there. */
export type Fields<Known extends KnownFields> = { [Index in keyof Known]: readonly SexpNode[] | undefined };

/** Takes from a tree what is expected there. Every method but `excerpt` throws a SexpError that says what is there instead. */
export class SexpInspector {
  readonly #tree: SexpTree;

  constructor(tree: SexpTree) {
    this.#tree = tree;
  }

  /** The bytes of an atom. */
  text(node: SexpNode): ByteString {
    if (!this.#tree.isList(node)) return this.#tree.text(node);
    this.fail(node, `${this.excerpt(node)} is a list, where one value is expected`, 'remove its parentheses');
  }

  texts(nodes: readonly SexpNode[]): ByteString[] {
    return nodes.map((node) => this.text(node));
  }

  /** An integer as OCaml writes them (63 bits); one that does not fit a double is refused. */
  integer(node: SexpNode): number {
    const value = integerOf(this.text(node));
    if (value !== undefined && Number.isSafeInteger(value)) return value;
    this.fail(node, `${this.excerpt(node)} is no integer`, 'write a decimal number, such as 1000');
  }

  /** The bytes of `value`, which `owner` must have; `example` is how to write it. */
  required(owner: SexpNode, value: readonly SexpNode[] | undefined, example: string): ByteString {
    const [node] = value ?? [];
    if (node !== undefined) return this.text(node);
    const [, name = ''] = /^\((\w+)/.exec(example) ?? [];
    this.fail(owner, `${this.excerpt(owner)} has no ${name}`, `add ${example}`);
  }

  /** The fields among `nodes`, which are nothing else, and none of them twice. */
  fields<const Known extends KnownFields>(nodes: readonly SexpNode[], known: Known): Fields<Known> {
    const fields: (readonly SexpNode[] | undefined)[] = known.map(() => undefined);
    for (const node of nodes) {
      const index = this.#fieldIndex(node, known);
      const [name, arity] = known[index] ?? ['', 'many'];
      if (fields[index] !== undefined) this.fail(node, `a second field ${name}`, 'keep one of them');
      const values = this.#tree.children(node, 1);
      if (arity === 'one' && values.length !== 1) this.failNotOne(node);
      fields[index] = values;
    }
    return fields as Fields<Known>;
  }

  #fieldIndex(node: SexpNode, known: KnownFields): number {
    const [keyword] = this.#tree.isList(node) ? this.#tree.children(node, 0, 1) : [];
    if (keyword === undefined || this.#tree.isList(keyword)) {
      this.fail(
        node,
        `${this.excerpt(node)} is no field`,
        `a field is a list that starts with ${namesOf(known)}`,
      );
    }
    const text = this.#tree.text(keyword) as string;
    const index = known.findIndex(([name]) => name === text);
    if (index >= 0) return index;
    this.fail(keyword, `unknown field ${this.excerpt(keyword)}`, `known here: ${namesOf(known)}`);
  }

  failNotOne(list: SexpNode): never {
    this.fail(
      list,
      `${this.excerpt(list)} takes exactly one value`,
      'put a value with blanks between double quotes',
    );
  }

  fail(node: SexpNode, message: string, hint: string): never {
    throw new SexpError({ offset: this.#tree.offset(node), end: this.#tree.end(node) }, message, hint);
  }

  /** A piece of the source for a message: on one line, and not too long. */
  excerpt(node: SexpNode): string {
    const text = printInline(sexpOf(this.#tree, node, EXCERPT_LENGTH_MAX + 1));
    return text.length <= EXCERPT_LENGTH_MAX ? text : `${text.slice(0, EXCERPT_LENGTH_MAX - 1)}…`;
  }
}

const EXCERPT_LENGTH_MAX = 60;

function namesOf(known: KnownFields): string {
  return known.map(([name]) => name).join(', ');
}

const INTEGER = /^([-+]?)(0[xob]|0u|)0*([0-9a-f][0-9a-f_]*)$/i;
const DIGITS: Readonly<Record<string, RegExp>> = {
  '': /^[0-9]{1,20}$/,
  '0u': /^[0-9]{1,20}$/,
  '0x': /^[0-9a-f]{1,16}$/,
  '0o': /^[0-7]{1,21}$/,
  '0b': /^[01]{1,63}$/,
};

function integerOf(text: ByteString): number | undefined {
  const [, sign, prefix = '', body = ''] = INTEGER.exec(text.toLowerCase()) ?? [];
  const digits = body.replaceAll('_', '');
  if (DIGITS[prefix]?.test(digits) !== true) return undefined;
  const magnitude = BigInt((prefix === '0u' ? '' : prefix) + digits);
  const value = sign === '-' ? -magnitude : magnitude;
  // After a prefix come 63 bits without sign, which then wrap around; without a prefix the sign counts.
  const isInRange = prefix === '' ? BigInt.asIntN(63, value) === value : magnitude < 1n << 63n;
  return isInRange ? Number(BigInt.asIntN(63, value)) : undefined;
}
