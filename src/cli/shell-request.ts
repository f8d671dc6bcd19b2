import { isatty } from 'node:tty';
import type { ShellEnding, ShellRequest } from '../builder/shell.ts';
import { EXIT_FAILURE, EXIT_INTERRUPTED } from './exit-codes.ts';
import { createTerminalFilter, terminalText } from './terminal-text.ts';

/** Whether somebody sits there. */
export function isOnTerminal(): boolean {
  return isatty(0) && isatty(1);
}

/** Runs `argv`, or a shell without one, with this process's terminal, or else its standard input and output. */
export function shellRequest(argv: readonly string[], signal: AbortSignal): ShellRequest {
  const request = {
    argv: argv.length === 0 ? ['/bin/bash'] : argv,
    note: (text: string) => console.error(`obuilder-fs: ${text}`),
  };
  if (isOnTerminal()) return { ...request, io: 'terminal', signal };
  const unread = new AbortController();
  process.stdout.on('error', () => unread.abort()); // who read it has gone
  const shown = isatty(1) ? createTerminalFilter() : (chunk: Uint8Array) => chunk;
  const output = (chunk: Uint8Array) => process.stdout.write(shown(chunk));
  const io = { stdin: process.stdin, output };
  return { ...request, io, signal: AbortSignal.any([signal, unread.signal]) };
}

/** Says what the command itself could not. */
export function shellExitCode(ending: ShellEnding): number {
  switch (ending.status) {
    case 'exited':
      return ending.exitStatus;
    case 'failed':
      console.error(`obuilder-fs: ${terminalText(ending.message)}`);
      return EXIT_FAILURE;
    case 'cancelled':
      console.error('obuilder-fs: cancelled');
      return EXIT_INTERRUPTED;
  }
}
