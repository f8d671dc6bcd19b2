import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createScratchBuild, processesOf, type ScratchBuild } from '../helpers/scratch-build.ts';
import { mainProgram, runProgram, whyNoMounts, type CommandAnswer } from '../helpers/scratch-mount.ts';
import { startOnTerminal, type Terminal } from '../helpers/terminal.ts';

const builder = 7800;

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs shell', () => {
  let scratch: ScratchBuild;
  /** A result with a file in the home and one in the prefix. */
  let id: string;

  beforeAll(async () => {
    scratch = await createScratchBuild([builder]);
    const built = await scratch.build(
      `((from base) (env LOST 1) (run (shell "echo mine > file; echo installed > ${scratch.prefix}/lib/file")))`,
    );
    id = idIn(built.stdout);
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  const command = (...args: string[]) => [process.execPath, mainProgram, 'shell', ...args];
  /** Without a mount, which takes as long as all the rest. */
  const flags = () => scratch.hostFlags({ mode: 'bind' });

  function shell(args: readonly string[], input = ''): CommandAnswer {
    return runProgram(command(id, ...flags(), ...args), input);
  }

  /** `after` is run there when the shell has ended. Its prompt is typed in two halves, for what is typed is shown as well. */
  async function onTerminal(after = ''): Promise<{ terminal: Terminal; device: string; pid: number }> {
    const line = command(id, ...flags()).join(' ');
    const terminal = startOnTerminal(`tty; (echo "pid=$BASHPID;"; exec ${line}); echo "status=$?"; ${after}`);
    await terminal.untilShown('discarded');
    const [, device = '', pid] = /^(\S+)\s+pid=(\d+);/.exec(terminal.shown()) ?? [];
    terminal.type(`PS1='pro''mpt> '\n`);
    await terminal.untilShown('prompt> ');
    return { terminal, device, pid: Number(pid) };
  }

  async function answerTo(terminal: Terminal, line: string): Promise<string> {
    const before = terminal.shown().length;
    terminal.type(`${line}\n`);
    await terminal.untilShown('prompt> ');
    return terminal.shown().slice(before);
  }

  it('runs a command as a step would be run, in a copy of the result, and ends with its status', () => {
    const script = `id -u; pwd; cat file ${scratch.prefix}/lib/file; echo "[$LOST]"; echo err >&2; echo new > file; exit 7`;
    const answer = runProgram(command(id, ...scratch.hostFlags(), '--', 'bash', '-c', script));
    expect(answer.stdout).toBe(`${builder}\n${scratch.path(`home${builder}`)}\nmine\ninstalled\n[]\nerr\n`);
    expect(answer.stderr).toContain('discarded');
    expect(answer.code).toBe(7);
    expect(readFileSync(scratch.path(`state/store/result/${id}/rootfs/file`), 'utf8')).toBe('mine\n');
    expect(scratch.results()).toHaveLength(2);
  });

  it('takes commands from standard input, without a terminal', () => {
    const { code, stdout } = shell([], 'tty; cat file; kill -TERM $$');
    expect(stdout).toBe('not a tty\nmine\n');
    expect(code).toBe(128 + 15);
  });

  it('ends when nobody reads what it prints', () => {
    const line = command(id, ...flags(), '--', 'yes').join(' ');
    expect(runProgram(['bash', '-c', `${line} 2>/dev/null | head -1`]).stdout).toBe('y\n');
  });

  it('names an id that there is no result of, and makes no store where there is none', () => {
    const none = 'f'.repeat(64);
    const answer = runProgram(command(none, ...flags()));
    expect(answer.stderr).toMatch(/no such result in the store; see: obuilder-fs store list/);
    expect(answer.code).toBe(1);
    const lost = runProgram(command(none, `--state-dir=${scratch.path('elsewhere')}`));
    expect(lost.stderr).toContain('there is no store');
    expect(existsSync(scratch.path('elsewhere'))).toBe(false);
  });

  it('on a terminal has one of its own, with job control: Ctrl-C ends what runs in it, not the shell, and nothing stops it', async () => {
    const { terminal } = await onTerminal();
    expect(await answerTo(terminal, 'set -o | grep monitor; tty')).toMatch(/monitor\s+on\s+\/dev\/pts\/\d+/);
    expect(await answerTo(terminal, 'echo again >/dev/stderr; echo and again >/dev/tty')).toMatch(
      /\nagain\r\nand again/,
    );
    terminal.type('echo go""ing; sleep 1000\n');
    await terminal.untilShown('going');
    await untilRuns('sleep');
    terminal.type('\x03');
    await terminal.untilShown('prompt> ');
    expect(await answerTo(terminal, 'echo "after $?"')).toContain('after 130');
    await answerTo(terminal, 'kill -STOP $$'); // all that stands between it and us would stop as well
    terminal.type('exit 7\n');
    await terminal.untilShown('status=7');
    expect((await terminal.done).code).toBe(0);
  });

  it('keeps the terminal that it was started on from the build user: nothing can be read or typed there', async () => {
    const { terminal, device } = await onTerminal('read -t 0 && echo "in""jected"');
    const descriptors = await answerTo(terminal, 'tty; readlink /proc/$$/fd/* /proc/$PPID/fd/*');
    const [own, ...others] = descriptors.match(/\/dev\/pts\/\d+/g) ?? [];
    expect(own).toMatch(/pts/);
    expect(own).not.toBe(device);
    expect(new Set(others)).toEqual(new Set([own]));
    // TIOCSTI: whoever reads from the terminal next gets it, as if typed.
    const inject = `perl -e 'for my $to (*STDIN, *STDOUT, *STDERR) { ioctl($to, 0x5412, my $c = $_) for split //, "typed\n" }'`;
    terminal.type(`${inject}; exit 3\n`);
    await terminal.untilShown('status=3');
    expect((await terminal.done).shown).not.toContain('injected');
  });

  it('ends whatever still runs in it when it is stopped, and leaves the terminal as it was', async () => {
    const { terminal, pid } = await onTerminal('stty -a | grep -o -- "-*icanon"');
    await answerTo(terminal, 'setsid nohup sleep 1000 &');
    await untilRuns('sleep');
    process.kill(pid, 'SIGTERM');
    await terminal.untilShown('status=130');
    expect((await terminal.done).shown).toMatch(/cancelled\s+status=130\s+icanon/);
  });

  it('leaves nothing when it is killed: its processes end with it, the next start removes the copy', async () => {
    const [program = '', ...args] = command(id, ...flags(), '--', 'sleep', '1000');
    const killed = spawn(program, args, { stdio: 'ignore' });
    const gone = once(killed, 'exit');
    await untilRuns('sleep');
    killed.kill('SIGKILL');
    await gone;
    await until(() => processesOf(builder).length === 0);
    expect(readdirSync(scratch.path('state/store/result-tmp'))).toHaveLength(1);
    expect(shell(['--', 'cat', 'file']).stdout).toBe('mine\n');
  });
});

function idIn(stdout: string): string {
  const id = /Got: "(\w+)"/.exec(stdout)?.[1];
  if (id === undefined) throw new Error(`no result:\n${stdout}`);
  return id;
}

async function until(isSo: () => boolean): Promise<void> {
  const deadline = Date.now() + 60_000;
  while (!isSo()) {
    if (Date.now() > deadline) throw new Error('it took too long');
    await delay(20);
  }
}

function untilRuns(name: string): Promise<void> {
  return until(() => processesOf(builder).some((pid) => statusOf(pid).startsWith(`Name:\t${name}\n`)));
}

function statusOf(pid: string): string {
  return existsSync(`/proc/${pid}`) ? readFileSync(`/proc/${pid}/status`, 'utf8') : '';
}
