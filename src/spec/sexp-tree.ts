import type { ByteString } from './byte-string.ts';
import { Unescaper } from './unescape.ts';

declare const sexpNode: unique symbol;

/** An atom or list of a tree: its number there, in the order of the source. */
export type SexpNode = number & { readonly [sexpNode]: true };

/**
 * The S-expression in a source, with the places of its parts. It lies in one flat array: a spec of 10 MiB has a million parts, and
 * an object for each would take most of the time that reading them does.
 */
export class SexpTree {
  readonly #source: ByteString;
  /** The same, to look at: a string of many MiB is several times slower there. */
  readonly #bytes: Uint8Array;
  readonly #unescaper: Unescaper;
  readonly #places: Int32Array;

  /** Made by a SexpTreeBuilder. */
  constructor(source: ByteString, bytes: Uint8Array, places: Int32Array) {
    this.#source = source;
    this.#bytes = bytes;
    this.#unescaper = new Unescaper(bytes);
    this.#places = places;
  }

  get root(): SexpNode {
    return 0 as SexpNode;
  }

  isList(node: SexpNode): boolean {
    return this.#bytes[this.offset(node)] === OPEN_CODE;
  }

  /** Whether it is an atom with this text. */
  isAtom(node: SexpNode, text: string): boolean {
    return !this.isList(node) && (this.text(node) as string) === text;
  }

  /** The bytes of an atom. */
  text(node: SexpNode): ByteString {
    const [offset, end] = [this.offset(node), this.end(node)];
    if (this.#bytes[offset] !== QUOTE_CODE) return this.#source.slice(offset, end) as ByteString;
    const quoted = this.#source.slice(offset + 1, end - 1) as ByteString;
    return quoted.includes('\\') ? this.#unescaper.read(offset + 1, end - 1) : quoted;
  }

  /** What a list holds, without the first `skip` of it, and at most `countMax` of it; an atom holds nothing. */
  children(list: SexpNode, skip = 0, countMax = Infinity): SexpNode[] {
    const children: SexpNode[] = [];
    const after = this.#after(list);
    let index = 0;
    for (let node = (list + 1) as SexpNode; node < after && index < countMax; node = this.#after(node)) {
      if (index++ >= skip) children.push(node);
    }
    return children;
  }

  /** The byte where it begins. */
  offset(node: SexpNode): number {
    return this.#places[node * PLACES + OFFSET] ?? 0;
  }

  /** One past its last byte. */
  end(node: SexpNode): number {
    return this.#places[node * PLACES + END] ?? 0;
  }

  /** The node after it and all that it holds. */
  #after(node: SexpNode): SexpNode {
    return (this.#places[node * PLACES + AFTER] ?? 0) as SexpNode;
  }
}

/** Takes the parts of a tree in the order of the source. */
export class SexpTreeBuilder {
  #places: Int32Array;
  #count = 0;
  #innermost: SexpNode | undefined;
  #depth = 0;

  /** @param lengthHint how many bytes the source has. */
  constructor(lengthHint: number) {
    this.#places = new Int32Array(PLACES * Math.ceil(lengthHint / SPARSE + 16));
  }

  /** How many nodes there are: the number of the next one. */
  get count(): number {
    return this.#count;
  }

  addAtom(offset: number, end: number): SexpNode {
    return this.#add(offset, end);
  }

  /** The list that was opened last and is not closed. */
  get innermost(): SexpNode | undefined {
    return this.#innermost;
  }

  /** How many lists are open. */
  get depth(): number {
    return this.#depth;
  }

  /** A list that holds all that is added until it is closed. */
  openList(offset: number): void {
    const list = this.#add(offset, offset);
    // While it is open nothing is after it, and the place serves as the stack: ten million lists may be open.
    this.#places[list * PLACES + AFTER] = this.#innermost ?? NONE;
    this.#innermost = list;
    this.#depth++;
  }

  closeList(list: SexpNode, end: number): void {
    const outer = this.#places[list * PLACES + AFTER] ?? NONE;
    this.#innermost = outer === NONE ? undefined : (outer as SexpNode);
    this.#depth--;
    this.#places[list * PLACES + END] = end;
    this.#places[list * PLACES + AFTER] = this.#count;
  }

  /** Takes back `node` and all that was added after it. */
  removeFrom(node: SexpNode): void {
    this.#count = node;
  }

  offset(node: SexpNode): number {
    return this.#places[node * PLACES + OFFSET] ?? 0;
  }

  build(source: ByteString, bytes: Uint8Array): SexpTree {
    return new SexpTree(source, bytes, this.#places);
  }

  #add(offset: number, end: number): SexpNode {
    const node = this.#count++;
    const at = node * PLACES;
    if (at === this.#places.length) this.#grow();
    this.#places[at + OFFSET] = offset;
    this.#places[at + END] = end;
    this.#places[at + AFTER] = this.#count;
    return node as SexpNode;
  }

  #grow(): void {
    const grown = new Int32Array(this.#places.length * 2);
    grown.set(this.#places);
    this.#places = grown;
  }
}

/** A node has so many numbers in the array: */
const PLACES = 3;
const OFFSET = 0;
const END = 1;
const AFTER = 2;

const NONE = -1;

/** Most sources have more bytes than this for each node; where not, the array grows. */
const SPARSE = 8;

const OPEN_CODE = 0x28;
const QUOTE_CODE = 0x22;
