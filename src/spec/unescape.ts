import type { ByteString } from './byte-string.ts';
import { SexpError } from './sexp-error.ts';

/** Reads what stands between the quotes of a source, in room of its own: a spec may have a million small strings. */
export class Unescaper {
  readonly #source: Uint8Array;
  #at = 0;
  #end = 0;
  #bytes = Buffer.alloc(256);
  #length = 0;

  constructor(source: Uint8Array) {
    this.#source = source;
  }

  /**
   * What the bytes from `start` to before `end` mean.
   * @throws {SexpError} when an escape is malformed.
   */
  read(start: number, end: number): ByteString {
    this.check(start, end);
    return this.#bytes.toString('latin1', 0, this.#length) as ByteString;
  }

  /** Throws what reading it would. */
  check(start: number, end: number): void {
    this.#at = start;
    this.#end = end;
    this.#length = 0;
    if (this.#bytes.length < end - start) this.#bytes = Buffer.allocUnsafe(end - start);
    while (this.#at < this.#end) {
      const code = this.#source[this.#at++] ?? 0;
      if (code === BACKSLASH_CODE) this.#readEscape();
      else this.#write(code);
    }
  }

  #write(code: number): void {
    this.#bytes[this.#length++] = code;
  }

  #readEscape(): void {
    const code = this.#source[this.#at++] ?? 0;
    const escaped = ESCAPED[code] ?? NO_ESCAPE;
    if (escaped !== NO_ESCAPE) {
      this.#write(escaped);
    } else if (code === HEXADECIMAL_CODE) {
      this.#readCode(2, 16);
    } else if (code >= ZERO_CODE && code <= NINE_CODE) {
      this.#at--;
      this.#readCode(3, 10);
    } else if (code === NEWLINE_CODE) {
      this.#skipBlanks();
    } else if (code === RETURN_CODE) {
      this.#readReturn();
    } else {
      this.#write(BACKSLASH_CODE);
      this.#write(code);
    }
  }

  #readCode(length: 2 | 3, base: 16 | 10): void {
    const offset = this.#at;
    let code = 0;
    for (let i = 0; i < length; i++) {
      const digit = DIGITS[this.#source[offset + i] ?? 0] ?? NO_DIGIT;
      if (digit >= base) {
        const kind = base === 16 ? 'hexadecimal' : 'decimal';
        throw new SexpError({ offset }, `an unfinished ${kind} escape`, ESCAPE_HINT);
      }
      code = code * base + digit;
    }
    if (code > 255) {
      throw new SexpError({ offset }, `\\${code} is no byte`, 'decimal escapes go from \\000 to \\255');
    }
    this.#at += length;
    this.#write(code);
  }

  /** Before a newline it continues the string, alone it only loses its backslash. */
  #readReturn(): void {
    if (this.#source[this.#at] !== NEWLINE_CODE) {
      this.#write(RETURN_CODE);
      return;
    }
    this.#at++;
    this.#skipBlanks();
  }

  #skipBlanks(): void {
    while (this.#at < this.#end && isBlank(this.#source[this.#at])) this.#at++;
  }
}

function isBlank(code: number | undefined): boolean {
  return code === SPACE_CODE || code === TAB_CODE;
}

const ESCAPE_HINT = 'write \\xHH, \\DDD, or \\\\ for a backslash';
const BACKSLASH_CODE = 0x5c;
const HEXADECIMAL_CODE = 0x78;
const NEWLINE_CODE = 0x0a;
const RETURN_CODE = 0x0d;
const SPACE_CODE = 0x20;
const TAB_CODE = 0x09;
const ZERO_CODE = 0x30;
const NINE_CODE = 0x39;
const NO_ESCAPE = -1;
const NO_DIGIT = 255;

/** The byte that a backslash and another byte stand for. */
const ESCAPED = new Int16Array(256).fill(NO_ESCAPE);
for (const [char = '', escaped = ''] of ['n\n', 't\t', 'r\r', 'b\b', '\\\\', '""', "''"]) {
  ESCAPED[char.charCodeAt(0)] = escaped.charCodeAt(0);
}

/** The value of each hexadecimal digit. */
const DIGITS = new Uint8Array(256).fill(NO_DIGIT);
for (let value = 0; value < 16; value++) {
  const digit = value.toString(16);
  DIGITS[digit.charCodeAt(0)] = value;
  DIGITS[digit.toUpperCase().charCodeAt(0)] = value;
}
