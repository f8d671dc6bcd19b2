import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../../src/os/exec.ts';
import { createScratchSandbox, type ScratchSandbox } from '../helpers/scratch-sandbox.ts';
import { whyNoTestUsers } from '../helpers/test-users.ts';

const uid = 7815;

/** What sessions of PAM's add (mail, logind, the machine's own variables), and what only a terminal has. */
const ofSessions = /^(MAIL|TERM|COLORTERM|XDG_.*|DBUS_SESSION_BUS_ADDRESS)$/;
/** What each shell on the way sets anew. */
const ofShells = /^(_|SHLVL)$/;

/** The names that PAM sets on this machine. */
function namesOfMachine(): string[] {
  return ['/etc/environment', '/etc/default/locale'].flatMap((file) => {
    try {
      return [...readFileSync(file, 'utf8').matchAll(/^\s*(?:export\s+)?(\w+)=/gm)].map(
        ([, name = '']) => name,
      );
    } catch {
      return [];
    }
  });
}

function variables(printed: string): Map<string, string> {
  const lines = printed.split('\0').filter((line) => line !== '');
  return new Map(lines.map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)]));
}

describe.skipIf(whyNoTestUsers !== undefined)('a step’s environment', () => {
  let scratch: ScratchSandbox;
  beforeAll(async () => {
    scratch = await createScratchSandbox([uid]);
  });
  afterAll(() => scratch.close());

  it('is what su -l gives its user, and a TMPDIR', async () => {
    const { output } = await scratch.run('', { command: { argv: ['/usr/bin/env', '-0'] } });
    const su = await runCommand(['su', '-l', `mac${uid}`, '-c', 'exec /usr/bin/env -0'], {
      env: { ...process.env, OF_OPERATOR: 'yes' },
    });
    const machines = namesOfMachine();
    const kept = (printed: string) =>
      [...variables(printed)].filter(
        ([name]) => !ofSessions.test(name) && !ofShells.test(name) && !machines.includes(name),
      );
    const ofStep = new Map(kept(output));
    expect(ofStep.get('TMPDIR')).toBe(`${scratch.homePath}.tmp`);
    ofStep.delete('TMPDIR');
    expect(ofStep).toEqual(new Map(kept(su.stdout)));
    expect([...ofStep.keys()]).toEqual(expect.arrayContaining(['HOME', 'USER', 'LOGNAME', 'SHELL']));
  });

  it('comes with no group but its user’s own', async () => {
    expect((await scratch.run('id -u; id -G')).output).toBe(`${uid}\n${uid}\n`);
  });
});
