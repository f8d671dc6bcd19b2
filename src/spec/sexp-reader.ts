import { bufferOf, type ByteString } from './byte-string.ts';
import { SexpError } from './sexp-error.ts';
import { SexpTreeBuilder, type SexpNode, type SexpTree } from './sexp-tree.ts';
import { Unescaper } from './unescape.ts';

/**
 * Reads the one S-expression in `source`. Comments (`;` to the end of the line, `#;` before an S-expression, nested `#| |#`) are skipped.
 * @throws {SexpError} when there is none, more than one, or one that is malformed.
 */
export function parseSexp(source: ByteString): SexpTree {
  return new Reader(source).read();
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
/** What some editors put before the text; to OBuilder it is an atom. */
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];
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
  /** The same, to look at: a string of many MiB is several times slower there. */
  readonly #bytes: Uint8Array;
  readonly #unescaper: Unescaper;
  #at = 0;
  readonly #tree: SexpTreeBuilder;
  readonly #skips: Skip[] = [];

  constructor(source: ByteString) {
    this.#source = source;
    this.#bytes = bufferOf(source);
    this.#unescaper = new Unescaper(this.#bytes);
    this.#tree = new SexpTreeBuilder(source.length);
  }

  read(): SexpTree {
    while (this.#at < this.#bytes.length) this.#readToken();
    const unclosed = this.#tree.innermost;
    if (unclosed !== undefined) {
      throw this.#error(this.#tree.offset(unclosed), 'this list is never closed', UNCLOSED_HINT);
    }
    this.#refuseDanglingSkip('add what it should skip, or remove it');
    if (this.#tree.count === 0) {
      throw this.#error(
        0,
        'there is no S-expression here',
        'a spec looks like ((from IMAGE) (run (shell "COMMAND")))',
      );
    }
    return this.#tree.build(this.#source, this.#bytes);
  }

  #readToken(): void {
    switch (MEANINGS[this.#bytes[this.#at] ?? 0]) {
      case BLANK:
        this.#at++;
        break;
      case RETURN:
        this.#skipReturn();
        break;
      case OPEN:
        this.#tree.openList(this.#at++);
        break;
      case CLOSE:
        this.#closeList();
        break;
      case LINE_COMMENT:
        this.#skipLineComment();
        break;
      case QUOTE:
        this.#readQuotedAtom();
        break;
      case MARK:
        this.#readMark();
        break;
      default:
        this.#readBare();
        break;
    }
  }

  #closeList(): void {
    const list = this.#tree.innermost;
    if (list === undefined) {
      throw this.#error(this.#at, '")" closes nothing', 'remove it, or add the "(" that it closes');
    }
    if (this.#skips.at(-1)?.depth === this.#tree.depth) {
      this.#refuseDanglingSkip('put what it should skip before the ")", or remove it');
    }
    this.#tree.closeList(list, ++this.#at);
    this.#complete(list);
  }

  /** An atom or list was read to its end. */
  #complete(node: SexpNode): void {
    const { depth } = this.#tree;
    if (this.#skips.length > 0 && this.#skips.at(-1)?.depth === depth) {
      this.#skips.pop();
      this.#tree.removeFrom(node);
    } else if (depth === 0 && node > 0) {
      throw this.#error(
        this.#tree.offset(node),
        'a second S-expression, where only one is expected',
        BYTE_ORDER_MARK.every((byte, at) => this.#bytes[at] === byte)
          ? 'the first is a byte order mark: save the file without it'
          : 'put everything in one list, or remove the rest',
      );
    }
  }

  #refuseDanglingSkip(hint: string): void {
    const skip = this.#skips.at(-1);
    if (skip !== undefined) throw this.#error(skip.offset, '"#;" skips nothing', hint);
  }

  #skipReturn(): void {
    if (this.#bytes[this.#at + 1] !== NEWLINE_CODE) {
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
    if (this.#bytes[this.#at] === RETURN_CODE) this.#skipReturn();
  }

  /** A comment that starts with "#", or else an unquoted atom. */
  #readMark(): void {
    if (this.#source.startsWith('#;', this.#at)) {
      this.#skips.push({ depth: this.#tree.depth, offset: this.#at });
      this.#at += 2;
    } else if (this.#source.startsWith('#|', this.#at)) {
      this.#skipBlockComment();
    } else {
      this.#readBare();
    }
  }

  #readBare(): void {
    const bytes = this.#bytes;
    const offset = this.#at;
    let at = offset;
    for (; at < bytes.length; at++) {
      const meaning = MEANINGS[bytes[at] ?? 0];
      if (meaning === ATOM) continue;
      if (meaning !== MARK) break;
      this.#refuseCommentMark(at, offset);
    }
    this.#at = at;
    this.#complete(this.#tree.addAtom(offset, at));
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

  #readQuotedAtom(): void {
    const offset = this.#at;
    this.#readQuoted();
    this.#complete(this.#tree.addAtom(offset, this.#at));
  }

  #readQuoted(): void {
    const bytes = this.#bytes;
    const offset = this.#at;
    let hasEscape = false;
    for (let at = offset + 1; at < bytes.length; at++) {
      const code = bytes[at];
      if (code === BACKSLASH_CODE) {
        hasEscape = true;
        at++;
      } else if (code === QUOTE_CODE) {
        if (hasEscape) this.#unescaper.check(offset + 1, at);
        this.#at = at + 1;
        return;
      }
    }
    throw this.#error(offset, 'this string is never closed', "end it with '\"'");
  }

  #error(offset: number, message: string, hint: string): SexpError {
    return new SexpError({ offset }, message, hint);
  }
}

const UNCLOSED_HINT = 'add the ")" that closes it; one after ";" is part of a comment';
const LINE_END = /[\n\r]/g;
const BLOCK_MARK = /#\||\|#|"/g;
