import { Writable } from 'node:stream';
import { expect, test } from 'vitest';
import type { BuildEvent } from '../../src/builder/build-event.ts';
import { createBuildPrinter } from '../../src/cli/build-output.ts';
import { createTerminalFilter, terminalText } from '../../src/cli/terminal-text.ts';

test.each([
  ['text', 'a ~ é € 😀\n'],
  ['tabs, and redrawing of the line', 'a\tb\r50%\b\b\b60%\x1b[K\r\n'],
  ['colours', '\x1b[1;31mred\x1b[0m \x1b[38:2:1:2:3mrgb\x1b[m'],
  ['a no-break space, whose bytes begin as a control character’s', '\u00a0'],
])('%s is shown', (_, text) => {
  expect(terminalText(text)).toBe(text);
});

test.each([
  ['a title', '\x1b]0;owned\x07', ''],
  ['a title that ends in ST', '\x1b]0;owned\x1b\\', ''],
  ['the clipboard', '\x1b]52;c;bHMK\x07', ''],
  ['a title that does not end, with no more than its line', '\x1b]0;owned\nnext', '\nnext'],
  ['a device’s string', '\x1bP+q544e\x1b\\', ''],
  ['an application’s string, in 8 bits', '\u009fx\x07', ''],
  ['a request for an answer', '\x1b[5n\x1b[c\x1b[6n\x1bZ', ''],
  ['clearing the screen, and going to its top', '\x1b[2J\x1b[H\x1bc', ''],
  ['going up to overwrite', '\x1b[3A', ''],
  ['another screen', '\x1b[?1049h', ''],
  ['a keyboard’s mode that ends as a colour', '\x1b[>4;2m', ''],
  ['a control sequence in 8 bits', '\u009b2J', ''],
  ['another character set', '\x1b(0', ''],
  ['a bell and other controls', '\x07\x00\x0e\x7f\x0c', ''],
  ['a sequence in a sequence', '\x1b[2\x1b[5n', ''],
  ['one without end', `\x1b[${'1;'.repeat(1000)}m`, ''],
])('%s is left out', (_, hostile, rest) => {
  expect(terminalText(`before${hostile}after`)).toBe(`before${rest}after`);
});

test('it makes no difference where the chunks end', () => {
  const text = Buffer.from('\x1b[31mé\u009b2J\x1b]0;owned\x1b\\\u00a0\x1b[0m\x1b[2Jend');
  const whole = createTerminalFilter()(text);
  for (let at = 1; at < text.length; at++) {
    const filter = createTerminalFilter();
    const parts = [filter(text.subarray(0, at)), filter(text.subarray(at))];
    expect(Buffer.concat(parts), `cut at ${at}`).toEqual(Buffer.from(whole));
  }
});

const hostile: readonly BuildEvent[] = [
  { type: 'heading', text: '/: (run (shell "\x1b[2J"))' },
  { type: 'output', data: Buffer.from('\x1b]0;owned\x07said\n\x1b[2') },
  { type: 'output', data: Buffer.from('Jmore\n') },
];

/** What a build that goes to `out` prints. */
function printed(isTTY: boolean): string {
  let text = '';
  const write = (chunk: Buffer, _: unknown, done: () => void) => {
    text += chunk.toString();
    done();
  };
  const out = Object.assign(new Writable({ write }), { isTTY });
  const print = createBuildPrinter({ out, progress: out });
  for (const event of hostile) print(event);
  return text;
}

test('a build shows a terminal text alone', () => {
  expect(printed(true)).toContain('/: (run (shell ""))');
  expect(printed(true)).toMatch(/\nsaid\nmore\n$/);
});

test('a build prints every byte where there is no terminal', () => {
  expect(printed(false)).toBe('/: (run (shell "\x1b[2J"))\n\x1b]0;owned\x07said\n\x1b[2Jmore\n');
});
