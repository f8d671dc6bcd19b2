import { existsSync } from 'node:fs';
import { ObuilderError } from '../errors.ts';
import { systemPath } from './step-namespace.ts';

/** A tool of the base system, on Linux and macOS; their options differ. */
const SCRIPT = '/usr/bin/script';

/**
 * Runs as root on the new terminal, which it gives to the build user: programs open theirs again (`>/dev/stderr`). After that it becomes
 * the command.
 */
const giveTerminal = `
export PATH=${systemPath}
terminal=$(tty) && chown -- "$1" "$terminal" && chmod 600 "$terminal" || exit
PATH=$2
shift 2
exec "$@"
`;

/**
 * The argv that runs `argv` on a pseudo terminal of its own, in a session of its own, and connects the terminal that it is itself started
 * on. Whoever holds a terminal can read what is typed there and type for whoever uses it after them (TIOCSTI), so a build user
 * must never get the operator's. Ends with the command's exit status, 128 and more for a signal.
 */
export function terminalCommand(
  { uid, path }: { readonly uid: number; readonly path: string },
  argv: readonly string[],
  platform = process.platform,
): string[] {
  const shell = ['/bin/bash', '--norc', '--noprofile', '-c', giveTerminal, 'obuilder-fs-terminal'];
  const command = [...shell, String(uid), path, ...argv];
  return platform === 'darwin'
    ? [SCRIPT, '-q', '/dev/null', ...command]
    : [SCRIPT, '--quiet', '--return', '--command', `exec ${command.map(shellQuoted).join(' ')}`, '/dev/null'];
}

/** @throws {ObuilderError} COMMAND_MISSING */
export function checkTerminalCommand(): void {
  if (existsSync(SCRIPT)) return;
  throw new ObuilderError('COMMAND_MISSING', `${SCRIPT}: no such command`, {
    hint: 'a shell on a terminal needs it: install the package that provides it (Debian: bsdutils)',
  });
}

function shellQuoted(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}
