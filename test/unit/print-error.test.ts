import { afterEach, describe, expect, it, vi } from 'vitest';
import { describeError, exitCodeOf, printError } from '../../src/cli/print-error.ts';
import { usageError } from '../../src/cli/wrong-usage.ts';
import { ObuilderError } from '../../src/errors.ts';

afterEach(() => vi.restoreAllMocks());

function printed(error: unknown, isVerbose = false): string[] {
  const lines: string[] = [];
  vi.spyOn(console, 'error').mockImplementation((line: string) => void lines.push(line));
  printError(error, { isVerbose });
  return lines;
}

describe('an error on a terminal', () => {
  it('is the thing and the cause, then the remedy', () => {
    expect(describeError(new ObuilderError('X', 'p is busy', { hint: 'wait' }))).toBe('p is busy; wait');
    expect(describeError(new ObuilderError('X', 'p is busy'))).toBe('p is busy');
    expect(describeError('text')).toBe('text');
  });

  it('is one line, whatever its message holds', () => {
    expect(printed(new Error('one\n  two\n'))).toEqual(['obuilder-fs: one; two']);
  });

  it('has its stack only when asked for', () => {
    const error = new Error('broken');
    expect(printed(error, true)).toEqual(['obuilder-fs: broken', error.stack]);
  });

  it.each([
    ['BAD_USAGE', 2],
    ['BAD_PREFIX', 2],
    ['BAD_OPTION', 2],
    ['PREFIX_BUSY', 1],
    ['NOT_ROOT', 1],
  ])('%s exits %i', (code, exitCode) => {
    expect(exitCodeOf(new ObuilderError(code, ''))).toBe(exitCode);
  });
});

describe('a wrong command line', () => {
  const commands = ['mount <prefix..>', 'status'];

  it('tells the usage of the command that was meant', () => {
    expect(usageError('what is wrong\n\nhere', ['--verbose', 'mount'], commands).message).toBe(
      'what is wrong here; usage: obuilder-fs mount <prefix..> [options] (obuilder-fs mount --help tells more)',
    );
  });

  it('tells the usage of the program where no command was', () => {
    expect(usageError('what', ['mnt'], commands).message).toBe(
      'what; usage: obuilder-fs <command> [options] (obuilder-fs --help tells more)',
    );
  });
});
