import { spawn, type ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';
import type { BuildUser } from './build-users.ts';
import type { HostSystem } from './host-system.ts';
import { openStepCgroup } from './step-cgroup.ts';
import { limitedCommand, watchLimits, type StepLimits } from './step-limits.ts';
import type { Ending, ProcessEnding } from './step-login.ts';
import { openStepOutput } from './step-output.ts';
import { checkTerminalCommand, terminalCommand } from './step-terminal.ts';
import { untilAborted } from '../os/until-aborted.ts';

export interface StepProcess {
  readonly system: Pick<HostSystem, 'endProcessesOf'>;
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** Whose processes are all ended afterwards. */
  readonly user: BuildUser;
  /** Without it standard input is at its end. */
  readonly stdin: Readable | undefined;
  /** StepCommand.onTerminal says what it means. */
  readonly onTerminal?: boolean | undefined;
  readonly output: (chunk: Uint8Array) => void;
  /** What the process runs among may have a quick end for all processes there. */
  readonly files: { endProcesses?(): Promise<void> };
  readonly limits: StepLimits;
  /** A directory of root's, for the pipe's name. */
  readonly pipeDirectory: string;
}

/**
 * Runs a step's process, in a session of its own, without a terminal unless it asks for one. Answers when all processes of the user are
 * gone and all that they wrote has been heard: how the process ended, or undefined when `signal` came first.
 * Throws what `stdin` failed with; the step then got only part of its input.
 */
export async function runStepProcess(step: StepProcess, signal: AbortSignal): Promise<Ending | undefined> {
  const watch = watchLimits(step.onTerminal === true ? {} : step.limits, step.output);
  const cgroup = await openStepCgroup(`obuilder-fs-${step.user.uid}`, step.limits);
  try {
    const argv = limitedCommand(step.limits, cgroup.directories, step.argv);
    const stop = AbortSignal.any([signal, watch.exceeded]);
    const run = step.onTerminal === true ? runOnTerminal : runHeard;
    const ending = await run({ ...step, argv, output: watch.output }, stop);
    if (signal.aborted) return undefined;
    const why = watch.why();
    if (why !== undefined) return { stopped: why };
    return ending === undefined || ending.code === 0 ? ending : { ...ending, met: await cgroup.met() };
  } finally {
    watch.close();
    await cgroup.close();
  }
}

async function runHeard(step: StepProcess, signal: AbortSignal): Promise<ProcessEnding | undefined> {
  const output = await openStepOutput(step.pipeDirectory, step.user, step.output);
  try {
    if (signal.aborted) return undefined;
    const child = start(step, output.fd);
    output.started();
    return await follow(child, step, signal, killGroup);
  } finally {
    output.started();
    await output.drained();
  }
}

/** In this process's group, for only the group in the foreground may use the terminal. */
async function runOnTerminal(step: StepProcess, signal: AbortSignal): Promise<ProcessEnding | undefined> {
  checkTerminalCommand();
  if (signal.aborted) return undefined;
  const { PATH: path = '' } = step.env;
  const [command = '', ...args] = terminalCommand({ uid: step.user.uid, path }, step.argv);
  const env = { ...step.env, TERM: process.env['TERM'] ?? 'dumb' };
  const child = spawn(command, args, { cwd: '/', env, stdio: 'inherit' });
  // Where what it runs is stopped it stops as well, and with it the terminal: a program of the step's could do that.
  const goOn = () => child.kill('SIGCONT');
  process.on('SIGCHLD', goOn);
  try {
    return await follow(child, step, signal, endScript);
  } finally {
    process.off('SIGCHLD', goOn);
  }
}

function start({ argv, env, stdin }: StepProcess, outputFd: number): ChildProcess {
  const [command = '', ...args] = argv;
  const stdio = [stdin === undefined ? 'ignore' : 'pipe', outputFd, outputFd] as const;
  return spawn(command, args, { cwd: '/', detached: true, env, stdio: [...stdio] });
}

async function follow(
  child: ChildProcess,
  step: StepProcess,
  signal: AbortSignal,
  end: (child: ChildProcess) => void,
): Promise<ProcessEnding | undefined> {
  const ended = endingOf(child);
  try {
    return await untilAborted(Promise.race([ended, inputFailure(child, step.stdin)]), signal);
  } finally {
    end(child);
    await step.files.endProcesses?.();
    await step.system.endProcessesOf(step.user.uid);
    await ended.catch(() => undefined);
  }
}

function endingOf(child: ChildProcess): Promise<ProcessEnding> {
  return new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code, signal) => resolve({ code, signal }));
  });
}

/** Feeds the step, and rejects when the source fails. That the step does not read it all is its own business. */
function inputFailure(child: ChildProcess, source: Readable | undefined): Promise<never> {
  const { stdin } = child;
  if (source === undefined || stdin === null) return new Promise(() => undefined);
  stdin.on('error', () => source.destroy());
  return new Promise((_, reject) => {
    if (source.errored !== null) reject(source.errored);
    source.on('error', reject);
    source.pipe(stdin);
  });
}

/** Until it has become the build user, the process is root's and only we can end it. */
function killGroup(child: ChildProcess): void {
  if (child.pid === undefined || hasEnded(child)) return;
  process.kill(-child.pid, 'SIGKILL');
}

/** It ends what it runs, then sets the terminal right again, so it must not be killed. */
function endScript(child: ChildProcess): void {
  if (!hasEnded(child)) child.kill('SIGTERM');
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}
