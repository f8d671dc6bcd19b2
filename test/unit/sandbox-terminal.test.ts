import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { terminalCommand } from '../../src/sandbox/step-terminal.ts';

const uid = process.getuid?.() ?? 0;
const words = ['', 'two words', `it's "quoted" $HOME \`id\` \\`, 'a\nb', '*', '-n'];

describe.skipIf(process.platform !== 'linux' || !existsSync('/usr/bin/script'))(
  'a command on a terminal of its own',
  () => {
    function run(argv: readonly string[]) {
      const [program = '', ...args] = terminalCommand({ uid, path: '/the/path' }, argv);
      return spawnSync(program, args, { encoding: 'utf8', input: '' });
    }

    it('gets its words as they are, and its PATH', () => {
      const { stdout } = run(['/bin/bash', '-c', 'printf "[%s]" "$PATH" "$@"', 'name', ...words]);
      expect(stdout.replaceAll('\r', '')).toContain(
        ['/the/path', ...words].map((word) => `[${word}]`).join(''),
      );
    });

    it('can open its terminal again', () => {
      expect(run(['/bin/bash', '-c', '/usr/bin/tty >/dev/stderr']).stdout).toMatch(/^\/dev\/pts\/\d+\r\n/);
    });

    it.each([
      ['exit 0', 0],
      ['exit 7', 7],
      ['kill -TERM $$', 143],
    ])('tells how it ended: %s', (script, status) => {
      expect(run(['/bin/bash', '-c', script]).status).toBe(status);
    });
  },
);

it('macOS’s script takes the words as they are', () => {
  const argv = terminalCommand({ uid: 705, path: '/bin' }, words, 'darwin');
  expect(argv.slice(0, 3)).toEqual(['/usr/bin/script', '-q', '/dev/null']);
  expect(argv.slice(-words.length - 2)).toEqual(['705', '/bin', ...words]);
});
