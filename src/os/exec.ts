import { spawn, type SpawnOptions } from 'node:child_process';
import { ObuilderError } from '../errors.ts';

export interface CommandOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  /** Written to standard input, which is then closed; without it standard input is empty. */
  input?: string | Uint8Array;
  /** Exit codes that are answers rather than failures (default: only 0). */
  okCodes?: readonly number[];
  signal?: AbortSignal;
}

export interface CommandResult {
  exitCode: number;
  stdout: string;
  stderr: string;
}

/**
 * Runs a command to its end and returns what it printed.
 * @throws {ObuilderError} COMMAND_FAILED (the argv, how it ended, its last words) or COMMAND_MISSING.
 */
export async function runCommand(
  argv: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const [command, ...args] = argv;
  if (command === undefined) throw new Error('BUG: runCommand without a command');
  const spawnOptions: SpawnOptions = { stdio: ['pipe', 'pipe', 'pipe'] };
  if (options.cwd !== undefined) spawnOptions.cwd = options.cwd;
  if (options.env !== undefined) spawnOptions.env = options.env;
  if (options.signal !== undefined) spawnOptions.signal = options.signal;
  const child = spawn(command, args, spawnOptions);
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  child.stdout?.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
  child.stdin?.on('error', () => undefined); // a command may end without reading its input
  child.stdin?.end(options.input);
  let failure: Error | undefined;
  const ended = await new Promise<{ exitCode: number | null; signal: NodeJS.Signals | null }>(
    (resolve, reject) => {
      child.on('error', (error) => {
        if (child.pid === undefined) reject(startError(command, error));
        failure = error; // aborted: whoever hears of it must find the command gone
      });
      child.on('close', (exitCode, signal) => resolve({ exitCode, signal }));
    },
  );
  if (failure !== undefined) throw failure;
  const result = {
    exitCode: ended.exitCode ?? -1,
    stdout: Buffer.concat(stdout).toString(),
    stderr: Buffer.concat(stderr).toString(),
  };
  if ((options.okCodes ?? [0]).includes(result.exitCode)) return result;
  const how = ended.signal === null ? `exit status ${result.exitCode}` : `signal ${ended.signal}`;
  const lastWords = result.stderr.trim().split('\n').slice(-3).join('; ');
  throw new ObuilderError(
    'COMMAND_FAILED',
    `${argv.join(' ')}: ended with ${how}${lastWords && `: ${lastWords}`}`,
  );
}

/** What runs commands for code that names other systems' commands: its tests give another one. */
export type CommandRunner = typeof runCommand;

function startError(command: string, error: Error): Error {
  if ((error as NodeJS.ErrnoException).code !== 'ENOENT') return error;
  return new ObuilderError('COMMAND_MISSING', `${command}: no such command`, {
    hint: `install the package that provides ${command}`,
    cause: error,
  });
}
