import type { ByteString } from './byte-string.ts';

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
  /** What is wrong: one byte, or the S-expression that begins there. */
  readonly extent: 'byte' | 'sexp';

  constructor(offset: number, message: string, hint: string, extent: 'byte' | 'sexp' = 'byte') {
    super(message);
    this.offset = offset;
    this.hint = hint;
    this.extent = extent;
  }
}

/**
 * Reads the one S-expression in `source`. Comments (`;` to the end of the line, `#;` before an S-expression, nested `#| |#`) are skipped.
 * @throws {SexpError} when there is none, more than one, or one that is malformed.
 */
export function parseSexp(source: ByteString): LocatedSexp {
  return new Reader(source).read();
}

/**
 * Where the S-expression that begins at `offset` ends: one past its last byte.
 * @throws {SexpError} when it is malformed.
 */
export function sexpEnd(source: ByteString, offset: number): number {
  return new Reader(source, offset).readEnd();
}

/** What a byte means to the reader. */
const ATOM = 0;
const BLANK = 1;
const RETURN = 2;
const OPEN = 3;
const CLOSE = 4;
const LINE_COMMENT = 5;
const QUOTE = 6;
/** "#" or "|": part of an atom, or of the mark of a comment. */
const MARK = 7;

const MEANINGS = meaningsOf({
  [BLANK]: ' \t\f\n',
  [RETURN]: '\r',
  [OPEN]: '(',
  [CLOSE]: ')',
  [LINE_COMMENT]: ';',
  [QUOTE]: '"',
  [MARK]: '#|',
});

function meaningsOf(bytes: Readonly<Record<number, string>>): Uint8Array {
  const meanings = new Uint8Array(256);
  for (const [meaning, chars] of Object.entries(bytes)) {
    for (const char of chars) meanings[char.charCodeAt(0)] = Number(meaning);
  }
  return meanings;
}

const NEWLINE_CODE = 0x0a;
const RETURN_CODE = 0x0d;
const QUOTE_CODE = 0x22;
const BACKSLASH_CODE = 0x5c;

/** A `#;` whose S-expression has not come yet, in the list that is `depth` deep. */
interface Skip {
  readonly depth: number;
  readonly offset: number;
}

/** Reads byte by byte, in one pass: specs of many MiB are checked while somebody waits. */
class Reader {
  readonly #source: ByteString;
  #at: number;
  /** What the open lists and the document hold so far, outermost first; a list of its own for each would cost most of the time. */
  readonly #items: LocatedSexp[] = [];
  /** The open lists, outermost first: how many items came before theirs, and where they begin in the source. */
  readonly #starts: number[] = [];
  readonly #offsets: number[] = [];
  readonly #skips: Skip[] = [];

  constructor(source: ByteString, offset = 0) {
    this.#source = source;
    this.#at = offset;
  }

  read(): LocatedSexp {
    while (this.#at < this.#source.length) this.#readToken();
    const unclosed = this.#offsets.at(-1);
    if (unclosed !== undefined) throw this.#error(unclosed, 'this list is never closed', UNCLOSED_HINT);
    this.#refuseDanglingSkip('add what it should skip, or remove it');
    const [sexp] = this.#items;
    if (sexp === undefined) {
      throw this.#error(
        0,
        'there is no S-expression here',
        'a spec looks like ((from IMAGE) (run (shell "COMMAND")))',
      );
    }
    return sexp;
  }

  /** Where the first S-expression ends, whatever comes after it. */
  readEnd(): number {
    const isRead = () => this.#starts.length === 0 && this.#items.length > 0;
    while (this.#at < this.#source.length && !isRead()) this.#readToken();
    return this.#at;
  }

  #readToken(): void {
    switch (MEANINGS[this.#source.charCodeAt(this.#at)]) {
      case BLANK:
        this.#at++;
        break;
      case RETURN:
        this.#skipReturn();
        break;
      case OPEN:
        this.#starts.push(this.#items.length);
        this.#offsets.push(this.#at++);
        break;
      case CLOSE:
        this.#closeList();
        break;
      case LINE_COMMENT:
        this.#skipLineComment();
        break;
      case QUOTE: {
        const offset = this.#at;
        this.#add({ kind: 'atom', text: this.#readQuoted(), offset });
        break;
      }
      case MARK:
        this.#readMark();
        break;
      default:
        this.#readBare();
        break;
    }
  }

  #closeList(): void {
    const depth = this.#starts.length;
    const start = this.#starts.pop();
    const offset = this.#offsets.pop();
    if (start === undefined || offset === undefined) {
      throw this.#error(this.#at, '")" closes nothing', 'remove it, or add the "(" that it closes');
    }
    if (this.#skips.at(-1)?.depth === depth) {
      this.#refuseDanglingSkip('put what it should skip before the ")", or remove it');
    }
    const items = this.#items.slice(start);
    this.#items.length = start;
    this.#at++;
    this.#add({ kind: 'list', items, offset });
  }

  #add(sexp: LocatedSexp): void {
    const depth = this.#starts.length;
    if (this.#skips.length > 0 && this.#skips.at(-1)?.depth === depth) {
      this.#skips.pop();
      return;
    }
    if (depth === 0 && this.#items.length > 0) {
      throw this.#error(
        sexp.offset,
        'a second S-expression, where only one is expected',
        'put everything in one list, or remove the rest',
      );
    }
    this.#items.push(sexp);
  }

  #refuseDanglingSkip(hint: string): void {
    const skip = this.#skips.at(-1);
    if (skip !== undefined) throw this.#error(skip.offset, '"#;" skips nothing', hint);
  }

  #skipReturn(): void {
    if (this.#source.charCodeAt(this.#at + 1) !== NEWLINE_CODE) {
      throw this.#error(
        this.#at,
        'a carriage return without its newline',
        'end lines with a newline, or with carriage return and newline',
      );
    }
    this.#at += 2;
  }

  #skipLineComment(): void {
    LINE_END.lastIndex = this.#at;
    this.#at = LINE_END.exec(this.#source)?.index ?? this.#source.length;
    if (this.#source.charCodeAt(this.#at) === RETURN_CODE) this.#skipReturn();
  }

  /** A comment that starts with "#", or else an unquoted atom. */
  #readMark(): void {
    if (this.#source.startsWith('#;', this.#at)) {
      this.#skips.push({ depth: this.#starts.length, offset: this.#at });
      this.#at += 2;
    } else if (this.#source.startsWith('#|', this.#at)) {
      this.#skipBlockComment();
    } else {
      this.#readBare();
    }
  }

  #readBare(): void {
    const source = this.#source;
    const offset = this.#at;
    let at = offset;
    for (; at < source.length; at++) {
      const meaning = MEANINGS[source.charCodeAt(at)];
      if (meaning === ATOM) continue;
      if (meaning !== MARK) break;
      this.#refuseCommentMark(at, offset);
    }
    this.#at = at;
    this.#add({ kind: 'atom', text: source.slice(offset, at) as ByteString, offset });
  }

  #refuseCommentMark(at: number, atomOffset: number): void {
    const isMark = this.#source.startsWith('#|', at) || this.#source.startsWith('|#', at);
    if (!isMark) return;
    throw at === atomOffset
      ? this.#error(at, '"|#" ends no comment', 'remove it, add the "#|" that it ends, or quote the atom')
      : this.#error(at, 'a comment mark inside an unquoted atom', 'quote the atom');
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
    const source = this.#source;
    const offset = this.#at;
    let hasEscape = false;
    for (let at = offset + 1; at < source.length; at++) {
      const code = source.charCodeAt(at);
      if (code === BACKSLASH_CODE) {
        hasEscape = true;
        at++;
      } else if (code === QUOTE_CODE) {
        this.#at = at + 1;
        return hasEscape
          ? new Unescaper(source, offset + 1, at).read()
          : (source.slice(offset + 1, at) as ByteString);
      }
    }
    throw this.#error(offset, 'this string is never closed', "end it with '\"'");
  }

  #error(offset: number, message: string, hint: string): SexpError {
    return new SexpError(offset, message, hint);
  }
}

const UNCLOSED_HINT = 'add the ")" that closes it; one after ";" is part of a comment';
const LINE_END = /[\n\r]/g;
const BLOCK_MARK = /#\||\|#|"/g;

/** Reads what stands between two quotes. */
class Unescaper {
  readonly #source: ByteString;
  readonly #end: number;
  readonly #bytes: Buffer;
  #at: number;
  #length = 0;

  constructor(source: ByteString, start: number, end: number) {
    this.#source = source;
    this.#at = start;
    this.#end = end;
    this.#bytes = Buffer.allocUnsafe(end - start);
  }

  read(): ByteString {
    while (this.#at < this.#end) {
      const code = this.#source.charCodeAt(this.#at++);
      if (code === BACKSLASH_CODE) this.#readEscape();
      else this.#bytes[this.#length++] = code;
    }
    return this.#bytes.toString('latin1', 0, this.#length) as ByteString;
  }

  #readEscape(): void {
    const code = this.#source.charCodeAt(this.#at++);
    const escaped = ESCAPED[code] ?? NO_ESCAPE;
    if (escaped !== NO_ESCAPE) {
      this.#bytes[this.#length++] = escaped;
    } else if (code === HEXADECIMAL_CODE) {
      this.#readCode(/^[0-9a-f]{2}$/i, 2, 16);
    } else if (code >= ZERO_CODE && code <= NINE_CODE) {
      this.#at--;
      this.#readCode(/^[0-9]{3}$/, 3, 10);
    } else if (code === NEWLINE_CODE) {
      this.#skipBlanks();
    } else if (code === RETURN_CODE) {
      this.#readReturn();
    } else {
      this.#bytes[this.#length++] = BACKSLASH_CODE;
      this.#bytes[this.#length++] = code;
    }
  }

  #readCode(form: RegExp, length: number, base: 10 | 16): void {
    const digits = this.#source.slice(this.#at, this.#at + length);
    if (!form.test(digits)) {
      const kind = base === 16 ? 'hexadecimal' : 'decimal';
      throw new SexpError(this.#at, `an unfinished ${kind} escape`, ESCAPE_HINT);
    }
    const code = parseInt(digits, base);
    if (code > 255) {
      throw new SexpError(this.#at, `\\${digits} is no byte`, 'decimal escapes go from \\000 to \\255');
    }
    this.#at += length;
    this.#bytes[this.#length++] = code;
  }

  /** Before a newline it continues the string, alone it only loses its backslash. */
  #readReturn(): void {
    if (this.#source.charCodeAt(this.#at) !== NEWLINE_CODE) {
      this.#bytes[this.#length++] = RETURN_CODE;
      return;
    }
    this.#at++;
    this.#skipBlanks();
  }

  #skipBlanks(): void {
    while (this.#at < this.#end && ' \t'.includes(this.#source.charAt(this.#at))) this.#at++;
  }
}

const ESCAPE_HINT = 'write \\xHH, \\DDD, or \\\\ for a backslash';
const HEXADECIMAL_CODE = 0x78;
const ZERO_CODE = 0x30;
const NINE_CODE = 0x39;
const NO_ESCAPE = -1;

/** The byte that a backslash and another byte stand for. */
const ESCAPED = new Int16Array(256).fill(NO_ESCAPE);
for (const [char = '', escaped = ''] of ['n\n', 't\t', 'r\r', 'b\b', '\\\\', '""', "''"]) {
  ESCAPED[char.charCodeAt(0)] = escaped.charCodeAt(0);
}
