import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  anna,
  bert,
  carl,
  createScratchMount,
  runAs,
  whyNoMounts,
  type ScratchMount,
} from '../helpers/scratch-mount.ts';

/** A group that tests make members of by its number alone. */
const club = 7750;

describe.skipIf(whyNoMounts !== undefined).each(['handles', 'paths'])(
  'access control lists, --backing=%s',
  (backing) => {
    let scratch: ScratchMount;
    beforeAll(() => {
      scratch = createScratchMount();
      mkdirSync(scratch.path('anna/local/lib/kept'));
      for (const file of ['who', 'lib/kept/secret'])
        writeFileSync(scratch.path(`anna/local/${file}`), 'text');
      execFileSync('chmod', ['755', scratch.path('anna/local/lib/kept')]);
      setfacl(`u:${bert}:---`, 'lib/kept/secret');
      setfacl(`u:${bert}:---`, 'lib/kept');
      setfacl(`u:${carl}:rwx`, 'lib');
      for (const uid of [bert, carl]) scratch.point(uid, scratch.path('anna'));
      scratch.mount(`--backing=${backing}`);
    });
    afterAll(() => scratch.close());

    const setfacl = (entry: string, name: string) =>
      execFileSync('setfacl', ['-m', entry, scratch.path(`anna/local/${name}`)]);
    const at = (name: string) => join(scratch.prefix, name);
    const touch = (uid: number, name: string) => runAs(uid, ['touch', at(name)]).code;

    it('deny whom they deny, and nobody else', () => {
      expect(runAs(bert, ['cat', at('lib/kept/secret')]).stderr).toContain('Permission denied');
      expect(runAs(bert, ['ls', at('lib/kept')]).stderr).toContain('Permission denied');
      expect(runAs(carl, ['cat', at('lib/kept/secret')]).stdout).toBe('text');
    });

    it('grant what they grant', () => {
      expect(touch(carl, `lib/of-carl-${backing}`)).toBe(0);
      expect(touch(bert, `lib/of-bert-${backing}`)).not.toBe(0);
    });

    it('are changed by the owner alone, and hold at once', () => {
      const own = ['setfacl', '-m', `u:${bert}:r--`];
      execFileSync('chown', [`${anna}:${anna}`, scratch.path('anna/local/who')]);
      execFileSync('chmod', ['600', scratch.path('anna/local/who')]);
      scratch.point(anna, scratch.path('anna'));
      expect(runAs(bert, [...own, at('who')]).code).not.toBe(0);
      expect(runAs(bert, ['cat', at('who')]).code).not.toBe(0);
      expect(runAs(anna, [...own, at('who')])).toMatchObject({ code: 0 });
      expect(runAs(bert, ['cat', at('who')]).stdout).toBe('text');
    });

    it('of the tree’s own root take away from a group what others have', () => {
      setfacl(`g:${club}:---`, '.');
      const asMember = [
        'setpriv',
        `--reuid=${carl}`,
        `--regid=${carl}`,
        `--groups=${club}`,
        '--',
        'cat',
        at('who'),
      ];
      expect(runAs(0, asMember).stderr).toContain('Permission denied');
      expect(
        runAs(0, ['setpriv', `--reuid=${bert}`, `--regid=${bert}`, '--clear-groups', '--', 'cat', at('who')])
          .stdout,
      ).toBe('text');
    });
  },
);
