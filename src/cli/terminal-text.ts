/**
 * What steps print, and what specs say, is a stranger's. On a terminal only its text is shown, with tabs, colours and what redraws the
 * current line; whatever else a terminal would obey (titles, the clipboard, answers typed as if by the user, moving elsewhere to
 * overwrite what was said before) is left out. Logs and pipes get every byte.
 */
export type TerminalFilter = (chunk: Uint8Array) => Uint8Array;

const ESC = 0x1b;
const BEL = 0x07;
/** \b \t \n \r */
const KEPT_CONTROLS = new Set([0x08, 0x09, 0x0a, 0x0d]);
/** Colours, and erasing in the line. */
const KEPT_SEQUENCE = /^[\d;:]*[mK]$/;
const SEQUENCE_LENGTH_MAX = 64;
/** `[` begins a control sequence, these a string: `]` a title, `P` a device's, `X` `^` `_` others. */
const STRING_STARTS = new Set(Buffer.from(']PX^_'));

/** Where in a sequence the bytes so far end; `c1` is after the first byte of a control character's UTF-8. */
type State = 'text' | 'c1' | 'escape' | 'control' | 'string';

/** For one stream: a sequence may be split over chunks. */
export function createTerminalFilter(): TerminalFilter {
  let state: State = 'text';
  let sequence = '';
  let shown: number[] = [];

  const take: Readonly<Record<State, (byte: number) => void>> = {
    text(byte) {
      if (byte === ESC) state = 'escape';
      else if (byte === 0xc2) state = 'c1';
      else if (KEPT_CONTROLS.has(byte) || (byte >= 0x20 && byte !== 0x7f)) shown.push(byte);
    },
    c1(byte) {
      if (byte >= 0x80 && byte < 0xa0) {
        begin(byte - 0x40); // the same as ESC and this
      } else {
        shown.push(0xc2);
        again(byte);
      }
    },
    escape(byte) {
      if (byte < 0x20 || byte > 0x7e) again(byte);
      else if (byte >= 0x30) begin(byte); // those before announce a character set
    },
    control(byte) {
      if (byte < 0x20 || byte > 0x7e) {
        again(byte);
        return;
      }
      if (sequence.length < SEQUENCE_LENGTH_MAX) sequence += String.fromCharCode(byte);
      if (byte < 0x40) return;
      if (KEPT_SEQUENCE.test(sequence)) shown.push(...Buffer.from(`\x1b[${sequence}`));
      state = 'text';
    },
    string(byte) {
      // One that does not end takes no more than its line along.
      if (byte === BEL) state = 'text';
      else if (byte === ESC || byte === 0x0a) again(byte);
    },
  };

  function begin(kind: number): void {
    sequence = '';
    state = kind === 0x5b ? 'control' : STRING_STARTS.has(kind) ? 'string' : 'text';
  }

  function again(byte: number): void {
    state = 'text';
    take.text(byte);
  }

  return (chunk) => {
    shown = [];
    for (const byte of chunk) take[state](byte);
    return Uint8Array.from(shown);
  };
}

/** The same for a whole text. */
export function terminalText(text: string): string {
  return Buffer.from(createTerminalFilter()(Buffer.from(text))).toString();
}
