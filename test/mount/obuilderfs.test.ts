import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  anna,
  bert,
  carl,
  createScratchMount,
  mountsBelow,
  obuilderfsProgram,
  runAs,
  runProgram,
  whyNoMounts,
  type CommandAnswer,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined)('obuilderfs, the original program', () => {
  let scratch: ScratchMount;
  beforeEach(() => {
    scratch = createScratchMount();
  });
  afterEach(() => scratch.close());

  const obuilderfs = (...args: string[]): CommandAnswer =>
    runProgram([
      'env',
      `OBUILDER_FS_STATE_DIR=${scratch.stateDir}`,
      process.execPath,
      obuilderfsProgram,
      ...args,
    ]);
  const see = (uid: number) => runAs(uid, ['cat', join(scratch.prefix, 'who')]).stdout;

  it.each(['-o allow_other', '-oallow_other', ''])('returns 0 once the mount answers (%s)', (words) => {
    const options = words.split(' ').filter((word) => word !== '');
    const answer = obuilderfs(scratch.scoreboard, scratch.prefix, ...options);
    expect(answer).toEqual({ code: 0, stdout: '', stderr: '' });
    expect([anna, bert, carl].map(see)).toEqual(['anna', 'bert', 'covered']);
  });

  it('takes options before its operands, as FUSE programs do', () => {
    expect(obuilderfs('-o', 'allow_other', scratch.scoreboard, scratch.prefix).code).toBe(0);
    expect(see(anna)).toBe('anna');
  });

  it('umount -f ends the process, and the next mount works at once', () => {
    obuilderfs(scratch.scoreboard, scratch.prefix, '-o', 'allow_other');
    const pid = scratch.servingPid();
    expect(runProgram(['umount', '-f', scratch.prefix])).toMatchObject({ code: 0 });
    expect(runProgram(['timeout', '30', 'tail', '-f', '/dev/null', `--pid=${pid}`, '-s', '0.05']).code).toBe(
      0,
    );
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(obuilderfs(scratch.scoreboard, scratch.prefix, '-o', 'allow_other').code).toBe(0);
    expect(see(bert)).toBe('bert');
  });

  it('mounts, serves and is unmounted 20 times in a row without a wait in between', () => {
    for (let round = 0; round < 20; round++) {
      expect(obuilderfs(scratch.scoreboard, scratch.prefix, '-o', 'allow_other')).toMatchObject({
        code: 0,
        stderr: '',
      });
      expect(see(anna)).toBe('anna');
      expect(runProgram(['umount', '-f', scratch.prefix]).code).toBe(0);
    }
  });

  it.each<[name: string, args: (s: ScratchMount) => string[], says: string, code: number]>([
    ['no operand', () => [], 'a scoreboard and a prefix are needed', 2],
    ['one operand', (s) => [s.scoreboard], 'a scoreboard and a prefix are needed', 2],
    ['three operands', (s) => [s.scoreboard, s.prefix, 'x'], 'a scoreboard and a prefix are needed', 2],
    ['an unknown flag', (s) => [s.scoreboard, s.prefix, '-z'], 'unknown option -z', 2],
    ['-o without options', (s) => [s.scoreboard, s.prefix, '-o'], '-o needs mount options', 2],
    [
      'an unknown mount option',
      (s) => [s.scoreboard, s.prefix, '-o', 'bogus'],
      'unknown mount option "bogus"',
      2,
    ],
    ['no such scoreboard', (s) => [s.path('nope'), s.prefix], 'nope does not exist', 1],
    ['no such prefix', (s) => [s.scoreboard, s.path('nope')], 'nope does not exist', 1],
  ])('%s: one line, nothing mounted', (_, args, says, code) => {
    const answer = obuilderfs(...args(scratch));
    expect(answer).toMatchObject({ code, stdout: '', stderr: expect.stringContaining(says) as string });
    expect(answer.stderr).toMatch(/^obuilderfs: [^\n]+\n$/);
    expect(mountsBelow(scratch.directory)).toEqual([]);
  });

  it('--help tells how it is used and how it ends', () => {
    const { code, stdout } = obuilderfs('--help');
    expect(code).toBe(0);
    for (const word of ['SCOREBOARD PREFIX', '-o OPTION', 'umount -f PREFIX']) expect(stdout).toContain(word);
  });
});
