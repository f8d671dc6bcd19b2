import { ObuilderError } from '../errors.ts';
import { textOf, type ByteString } from './byte-string.ts';
import type { SexpError } from './sexp-error.ts';

/** Where a fault is, counted from 1, columns in characters. */
export interface SpecPlace {
  readonly fileName: string;
  readonly line: number;
  readonly column: number;
}

/** A spec that cannot be read: BAD_SPEC, with a message of one line that starts with the place. */
export class SpecError extends ObuilderError {
  readonly place: SpecPlace;
  /** Two lines for a terminal: the line of the source where it shows, and what is wrong underlined. None for a blank line. */
  readonly underlined: string | undefined;

  constructor(message: string, { hint, place, underlined }: SpecErrorDetails) {
    super('BAD_SPEC', `${place.fileName}:${place.line}:${place.column}: ${message}`, { hint });
    this.place = place;
    this.underlined = underlined;
  }
}

interface SpecErrorDetails {
  readonly hint: string;
  readonly place: SpecPlace;
  readonly underlined: string | undefined;
}

/** The error with its place in the file that `source` was read from. */
export function specErrorOf(error: SexpError, source: ByteString, fileName: string): SpecError {
  const { offset, end, message, hint } = error;
  const start = offset === 0 ? 0 : source.lastIndexOf('\n', offset - 1) + 1;
  const next = source.indexOf('\n', offset);
  const line = { source, start, end: next === -1 ? source.length : next };
  const place = {
    fileName,
    line: countNewlines(source, start) + 1,
    column: columnsOf(source.slice(start, offset)) + 1,
  };
  return new SpecError(message, {
    hint,
    place,
    underlined: underline(line, offset, end),
  });
}

function countNewlines(source: ByteString, end: number): number {
  let count = 0;
  for (let at = source.indexOf('\n'); at !== -1 && at < end; at = source.indexOf('\n', at + 1)) count++;
  return count;
}

const UTF8_CONTINUATION = /[\x80-\xbf]/g;

function columnsOf(bytes: string): number {
  return bytes.replace(UTF8_CONTINUATION, '').length;
}

interface Line {
  readonly source: ByteString;
  readonly start: number;
  readonly end: number;
}

/** Of a long line only this many bytes are shown before the fault, and from it on. */
const BEFORE_MAX = 40;
const AFTER_MAX = 60;

function underline({ source, start, end }: Line, offset: number, faultsEnd: number): string | undefined {
  const from = characterFrom(source, Math.max(start, offset - BEFORE_MAX), offset);
  const to = characterFrom(source, Math.min(end, offset + AFTER_MAX), end);
  const before = `${from > start ? '…' : ''}${shown(source.slice(from, offset))}`;
  const fault = shown(source.slice(offset, Math.min(faultsEnd, to)));
  const after = `${shown(source.slice(Math.min(faultsEnd, to), to))}${to < end ? '…' : ''}`;
  if (`${before}${fault}${after}`.trim() === '') return undefined;
  const carets = '^'.repeat(Math.max(1, widthOf(fault.trimEnd())));
  return `  ${before}${fault}${after}\n  ${' '.repeat(widthOf(before))}${carets}`.replaceAll(/ +$/gm, '');
}

/** The offset of the first character from `offset` on, so that none is cut in two. */
function characterFrom(source: ByteString, offset: number, offsetMax: number): number {
  let at = offset;
  while (at < offsetMax && /[\x80-\xbf]/.test(source.charAt(at))) at++;
  return at;
}

/** How many columns a terminal takes to show a text: two for East Asian characters and pictures, none for combining marks. */
function widthOf(text: string): number {
  return Array.from(text.replaceAll(WIDE, '  ').replaceAll(/\p{Mn}|\p{Me}/gu, '')).length;
}

const WIDE =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/gu;

/** As a terminal may show it: no control character gets through, nor what is invisible or turns the direction of writing. */
function shown(bytes: string): string {
  return textOf(bytes as ByteString).replaceAll(/\p{Cc}|\p{Cf}/gu, ' ');
}
