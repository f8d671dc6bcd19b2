import { mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  checkScoreboard,
  clearScoreboardEntry,
  createScoreboard,
  listScoreboard,
  setScoreboardEntry,
} from '../../src/fs/scoreboard.ts';

const refusal = (code: string) => expect.objectContaining({ code }) as Error;

describe.skipIf(process.getuid?.() !== 0)('a scoreboard, root’s', () => {
  let directory: string;
  let scoreboard: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'obuilder-fs-scoreboard.'));
    scoreboard = join(directory, 'made/on/the/way');
    createScoreboard(scoreboard);
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  it('is made with its parents, and made again where it is there', () => {
    setScoreboardEntry(scoreboard, '7', '/x');
    createScoreboard(scoreboard);
    expect(readdirSync(scoreboard)).toEqual(['7']);
  });

  it('an entry is replaced, and nothing else is left in the directory', () => {
    setScoreboardEntry(scoreboard, '7', '/x');
    setScoreboardEntry(scoreboard, '7', '/y');
    expect(readdirSync(scoreboard)).toEqual(['7']);
    expect(readlinkSync(join(scoreboard, '7'))).toBe('/y');
  });

  it('a killed change does not keep the next from being made', () => {
    writeFileSync(join(scoreboard, `.7.${process.pid}.new`), '');
    setScoreboardEntry(scoreboard, '7', '/x');
    expect(readdirSync(scoreboard)).toEqual(['7']);
  });

  it('clearing answers whether there was an entry', () => {
    setScoreboardEntry(scoreboard, 'default', '/x');
    expect(clearScoreboardEntry(scoreboard, 'default')).toBe(true);
    expect(clearScoreboardEntry(scoreboard, 'default')).toBe(false);
  });

  it('lists entries as the file system judges them, and no other names', () => {
    mkdirSync(join(directory, 'tree/local'), { recursive: true });
    setScoreboardEntry(scoreboard, '7', join(directory, 'tree'));
    setScoreboardEntry(scoreboard, '8', '/nowhere');
    writeFileSync(join(scoreboard, '9'), '');
    writeFileSync(join(scoreboard, 'README'), '');
    const entries = new Map(listScoreboard(scoreboard, 'local').map((entry) => [entry.name, entry]));
    expect([...entries.keys()].sort()).toEqual(['7', '8', '9']);
    expect(entries.get('7')).toMatchObject({ target: join(directory, 'tree'), problem: undefined });
    expect(entries.get('8')?.problem).toContain('nowhere');
    expect(entries.get('9')?.problem).toContain('not a symbolic link');
  });

  it.each(['', '-1', '07', '1.5', '1e3', '4294967295', '../x', 'DEFAULT'])('"%s" is no entry', (name) => {
    expect(() => setScoreboardEntry(scoreboard, name, '/x')).toThrow(refusal('BAD_UID'));
    expect(() => clearScoreboardEntry(scoreboard, name)).toThrow(refusal('BAD_UID'));
  });

  it('a relative target is refused', () => {
    expect(() => setScoreboardEntry(scoreboard, '7', 'x')).toThrow(refusal('BAD_TARGET'));
  });

  it('one that is missing or a file is refused', () => {
    writeFileSync(join(directory, 'file'), '');
    for (const name of ['nope', 'file', 'file/below']) {
      expect(() => checkScoreboard(join(directory, name))).toThrow(refusal('SCOREBOARD_MISSING'));
    }
  });
});
