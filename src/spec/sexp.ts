import type { ByteString } from './byte-string.ts';
import { Layout } from './layout.ts';

/**
 * S-expressions as OBuilder reads and writes them. An atom is bytes. Nothing here recurses, so depth is bounded by memory only.
 */
export type Sexp = ByteString | readonly Sexp[];

/** An S-expression that remembers at which byte of its source it began. */
export type LocatedSexp = LocatedAtom | LocatedList;

export interface LocatedAtom {
  readonly kind: 'atom';
  readonly text: ByteString;
  readonly offset: number;
}

export interface LocatedList {
  readonly kind: 'list';
  readonly items: readonly LocatedSexp[];
  readonly offset: number;
}

/** A source is no S-expression, or not the one expected: `message` says why, `offset` is the byte where it shows. */
export class SexpError extends Error {
  override readonly name = 'SexpError';
  readonly offset: number;
  readonly hint: string;

  constructor(offset: number, message: string, hint: string) {
    super(message);
    this.offset = offset;
    this.hint = hint;
  }
}

/**
 * Reads the one S-expression in `source`. Comments (`;` to the end of the line, `#;` before an S-expression, nested `#| |#`) are skipped.
 * @throws {SexpError} when there is none, more than one, or one that is malformed.
 */
export function parseSexp(source: ByteString): LocatedSexp {
  return new Reader(source).read();
}

/** Without its positions. */
export function withoutLocations(located: LocatedSexp): Sexp {
  const root: Sexp[] = [];
  const pending: { from: LocatedSexp; into: Sexp[] }[] = [{ from: located, into: root }];
  for (let next = pending.pop(); next !== undefined; next = pending.pop()) {
    if (next.from.kind === 'atom') {
      next.into.push(next.from.text);
      continue;
    }
    const items: Sexp[] = [];
    next.into.push(items);
    for (let i = next.from.items.length - 1; i >= 0; i--) {
      const item = next.from.items[i];
      if (item !== undefined) pending.push({ from: item, into: items });
    }
  }
  return root[0] ?? [];
}

/** Whether an atom must be written between quotes to be read back as it is. */
export function needsQuotes(atom: ByteString): boolean {
  return atom === '' || /[\x00-\x20"();\\\x7f-\xff]|#\||\|#/.test(atom);
}

/** The bytes of an atom as they stand between quotes. */
export function escapeAtom(atom: string): string {
  return atom.replace(/[\x00-\x1f"\\\x7f-\xff]/g, (char) => NAMED_ESCAPES[char] ?? decimalEscape(char));
}

const NAMED_ESCAPES: Readonly<Record<string, string>> = {
  '"': '\\"',
  '\\': '\\\\',
  '\n': '\\n',
  '\t': '\\t',
  '\r': '\\r',
  '\b': '\\b',
};

function decimalEscape(char: string): string {
  return `\\${String(char.charCodeAt(0)).padStart(3, '0')}`;
}

/** The canonical form that ids are made of: a space only between two unquoted atoms. ASCII. */
export function printMach(sexp: Sexp): string {
  const parts: string[] = [];
  let afterBareAtom = false;
  for (const token of tokensOf(sexp)) {
    if (typeof token === 'string') {
      parts.push(token);
      afterBareAtom = false;
    } else if (needsQuotes(token.atom)) {
      parts.push(`"${escapeAtom(token.atom)}"`);
      afterBareAtom = false;
    } else {
      parts.push(afterBareAtom ? ' ' : '', token.atom);
      afterBareAtom = true;
    }
  }
  return parts.join('');
}

/** On one line, with a space between any two items. ASCII. */
export function printInline(sexp: Sexp): string {
  const parts: string[] = [];
  let isFirst = true;
  for (const token of tokensOf(sexp)) {
    if (!isFirst && token !== ')') parts.push(' ');
    if (typeof token === 'string') parts.push(token);
    else parts.push(needsQuotes(token.atom) ? `"${escapeAtom(token.atom)}"` : token.atom);
    isFirst = token === '(';
  }
  return parts.join('');
}

/** The form for people: lines of at most 78 bytes where the atoms allow it, one more space of indentation for each list. ASCII. */
export function printHum(sexp: Sexp): string {
  const layout = new Layout();
  let isFirst = true;
  for (const token of tokensOf(sexp)) {
    if (token === ')') {
      layout.text(')');
      layout.close();
      isFirst = false;
      continue;
    }
    if (!isFirst) layout.break(1);
    if (token === '(') layout.open('packed', 1);
    if (typeof token === 'string') layout.text(token);
    else layoutAtom(layout, token.atom);
    isFirst = token === '(';
  }
  return layout.finish();
}

/**
 * One atom as people read it: an atom of several lines goes over several lines, each starting under the first. A newline that only
 * ends the atom does not make it one of several lines.
 */
export function layoutAtom(layout: Layout, atom: ByteString): void {
  if (!needsQuotes(atom)) {
    layout.text(atom);
    return;
  }
  const firstNewline = atom.indexOf('\n');
  if (firstNewline === -1 || firstNewline === atom.length - 1) {
    layout.text(`"${escapeAtom(atom)}"`);
    return;
  }
  layout.open('packed', 0);
  layout.text(' "');
  for (const [index, line] of atom.split('\n').entries()) {
    if (index > 0) {
      layout.text('\\');
      layout.newline();
      layout.text('\\n');
    }
    layout.text(escapeAtom(line));
  }
  layout.text('"');
  layout.close();
}

type Token = '(' | ')' | '()' | { readonly atom: ByteString };

/** The tokens of a printed S-expression, in order. */
export function* tokensOf(sexp: Sexp): Generator<Token> {
  const open: Iterator<Sexp>[] = [[sexp].values()];
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const next = top.next();
    if (next.done === true) {
      open.pop();
      if (open.length > 0) yield ')';
    } else if (typeof next.value === 'string') {
      yield { atom: next.value };
    } else if (next.value.length === 0) {
      yield '()';
    } else {
      yield '(';
      open.push(next.value.values());
    }
  }
}

/** What a byte means to the reader. */
type Mark = 'blank' | 'return' | 'open' | 'close' | 'line-comment' | 'quote' | 'atom';

const MARKS: Readonly<Record<string, Mark>> = {
  ' ': 'blank',
  '\t': 'blank',
  '\f': 'blank',
  '\n': 'blank',
  '\r': 'return',
  '(': 'open',
  ')': 'close',
  ';': 'line-comment',
  '"': 'quote',
};

/** A list that is being read; the outermost is the document. */
interface OpenList {
  readonly offset: number;
  readonly items: LocatedSexp[];
  /** Where the `#;` are whose S-expression has not come yet. */
  readonly skips: number[];
}

class Reader {
  readonly #source: ByteString;
  #at = 0;
  readonly #open: OpenList[] = [];
  #list: OpenList = { offset: 0, items: [], skips: [] };

  constructor(source: ByteString) {
    this.#source = source;
  }

  read(): LocatedSexp {
    while (this.#at < this.#source.length) this.#readToken();
    if (this.#open.length > 0) {
      throw this.#error(this.#list.offset, 'this list is never closed', UNCLOSED_HINT);
    }
    this.#refuseDanglingSkip(this.#list, 'add what it should skip, or remove it');
    const [sexp] = this.#list.items;
    if (sexp === undefined) {
      throw this.#error(
        0,
        'there is no S-expression here',
        'a spec looks like ((from IMAGE) (run (shell "COMMAND")))',
      );
    }
    return sexp;
  }

  #readToken(): void {
    const char = this.#source[this.#at] ?? '';
    switch (MARKS[char] ?? 'atom') {
      case 'blank':
        this.#at++;
        break;
      case 'return':
        this.#skipReturn();
        break;
      case 'open':
        this.#open.push(this.#list);
        this.#list = { offset: this.#at++, items: [], skips: [] };
        break;
      case 'close':
        this.#closeList();
        break;
      case 'line-comment':
        this.#skipLineComment();
        break;
      case 'quote': {
        const offset = this.#at;
        this.#add({ kind: 'atom', text: this.#readQuoted(), offset });
        break;
      }
      case 'atom':
        this.#readBare();
        break;
    }
  }

  #closeList(): void {
    const outer = this.#open.pop();
    if (outer === undefined) {
      throw this.#error(this.#at, '")" closes nothing', 'remove it, or add the "(" that it closes');
    }
    this.#refuseDanglingSkip(this.#list, 'put what it should skip before the ")", or remove it');
    const { items, offset } = this.#list;
    this.#list = outer;
    this.#add({ kind: 'list', items, offset });
    this.#at++;
  }

  #add(sexp: LocatedSexp): void {
    if (this.#list.skips.pop() !== undefined) return;
    if (this.#open.length === 0 && this.#list.items.length > 0) {
      throw this.#error(
        sexp.offset,
        'a second S-expression, where only one is expected',
        'put everything in one list, or remove the rest',
      );
    }
    this.#list.items.push(sexp);
  }

  #refuseDanglingSkip(list: OpenList, hint: string): void {
    const offset = list.skips.at(-1);
    if (offset !== undefined) throw this.#error(offset, '"#;" skips nothing', hint);
  }

  #skipReturn(): void {
    if (this.#source[this.#at + 1] !== '\n') {
      throw this.#error(
        this.#at,
        'a carriage return without its newline',
        'end lines with a newline, or with carriage return and newline',
      );
    }
    this.#at += 2;
  }

  #skipLineComment(): void {
    LINE_COMMENT.lastIndex = this.#at;
    LINE_COMMENT.test(this.#source);
    this.#at = LINE_COMMENT.lastIndex;
    if (this.#source[this.#at] === '\r') this.#skipReturn();
  }

  /** An unquoted atom, or one of the comments that start with "#". */
  #readBare(): void {
    const offset = this.#at;
    if (this.#source.startsWith('#;', offset)) {
      this.#list.skips.push(offset);
      this.#at += 2;
    } else if (this.#source.startsWith('#|', offset)) {
      this.#skipBlockComment();
    } else {
      BARE_ATOM.lastIndex = offset;
      BARE_ATOM.test(this.#source);
      this.#at = BARE_ATOM.lastIndex;
      const text = this.#source.slice(offset, this.#at) as ByteString;
      this.#refuseCommentMarks(text, offset);
      this.#add({ kind: 'atom', text, offset });
    }
  }

  #refuseCommentMarks(atom: ByteString, offset: number): void {
    const at = atom.search(/#\||\|#/);
    if (at === -1) return;
    throw at === 0
      ? this.#error(offset, '"|#" ends no comment', 'remove it, add the "#|" that it ends, or quote the atom')
      : this.#error(offset + at, 'a comment mark inside an unquoted atom', 'quote the atom');
  }

  #skipBlockComment(): void {
    const offset = this.#at;
    let depth = 0;
    do {
      BLOCK_MARK.lastIndex = this.#at;
      const mark = BLOCK_MARK.exec(this.#source);
      if (mark === null) throw this.#error(offset, 'this comment is never closed', 'end it with "|#"');
      this.#at = mark.index;
      if (mark[0] === '"') {
        this.#readQuoted();
        continue;
      }
      depth += mark[0] === '#|' ? 1 : -1;
      this.#at += 2;
    } while (depth > 0);
  }

  #readQuoted(): ByteString {
    const offset = this.#at++;
    const parts: string[] = [];
    for (;;) {
      QUOTED_MARK.lastIndex = this.#at;
      const mark = QUOTED_MARK.exec(this.#source);
      if (mark === null) throw this.#error(offset, 'this string is never closed', "end it with '\"'");
      parts.push(this.#source.slice(this.#at, mark.index));
      this.#at = mark.index + 1;
      if (mark[0] === '"') return parts.join('') as ByteString;
      parts.push(this.#readEscape());
    }
  }

  /** What the escape after a backslash stands for. */
  #readEscape(): string {
    const char = this.#source[this.#at++] ?? '';
    if (char === 'x') return this.#readCode(2, 16, 'hexadecimal');
    if (/[0-9]/.test(char)) {
      this.#at--;
      return this.#readCode(3, 10, 'decimal');
    }
    if (char === '\n') return this.#skipContinuation();
    if (char === '\r') {
      if (this.#source[this.#at] !== '\n') return char;
      this.#at++;
      return this.#skipContinuation();
    }
    return ESCAPES[char] ?? `\\${char}`;
  }

  #readCode(length: number, base: number, kind: string): string {
    const digits = this.#source.slice(this.#at, this.#at + length);
    if (digits.length < length || !(base === 16 ? /^[0-9a-f]+$/i : /^[0-9]+$/).test(digits)) {
      throw this.#error(
        this.#at,
        `an unfinished ${kind} escape`,
        'write \\xHH, \\DDD, or \\\\ for a backslash',
      );
    }
    const code = parseInt(digits, base);
    if (code > 255)
      throw this.#error(this.#at, `\\${digits} is no byte`, 'decimal escapes go from \\000 to \\255');
    this.#at += length;
    return String.fromCharCode(code);
  }

  #skipContinuation(): '' {
    while (this.#source[this.#at] === ' ' || this.#source[this.#at] === '\t') this.#at++;
    return '';
  }

  #error(offset: number, message: string, hint: string): SexpError {
    return new SexpError(offset, message, hint);
  }
}

const UNCLOSED_HINT = 'add the ")" that closes it; one after ";" is part of a comment';
const LINE_COMMENT = /[^\n\r]*/y;
const BARE_ATOM = /[^ \t\f\n\r();"]+/y;
const BLOCK_MARK = /#\||\|#|"/g;
const QUOTED_MARK = /["\\]/g;
const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  b: '\b',
  '\\': '\\',
  '"': '"',
  "'": "'",
};
