import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  createScratchBuild,
  firstBuilder,
  processesOf,
  secondBuilder,
  type ScratchBuild,
} from '../helpers/scratch-build.ts';
import { mountsBelow, whyNoMounts } from '../helpers/scratch-mount.ts';

describe.skipIf(whyNoMounts !== undefined)('obuilder-fs build', () => {
  let scratch: ScratchBuild;

  beforeAll(async () => {
    scratch = await createScratchBuild();
  });
  afterEach(() => {
    expect(scratch.leftovers()).toEqual([]);
    expect(readdirSync(scratch.prefix).sort()).toEqual(['host', 'lib']);
  });
  afterAll(() => scratch.close());

  /** A spec of one stage on the base image. */
  const spec = (...ops: string[]) => `((from base) ${ops.join('\n')})`;
  const run = (script: string) => `(run (shell ${JSON.stringify(script)}))`;

  it.each(['tree', 'shared', 'bind'])(
    'in prefix mode %s a step sees its own prefix, and a second build comes from the store',
    async (mode) => {
      const steps = spec(
        `(comment ${mode})`,
        `(env MODE ${mode})`,
        '(copy (src hello.txt) (dst ./in/))',
        run(
          `set -e; cp in/hello.txt ${scratch.prefix}/lib/$MODE; test ! -e ${scratch.prefix}/host; cat ~/local/lib/$MODE`,
        ),
        run(`cat ${scratch.prefix}/lib/$MODE; id -un`),
      );
      const first = await scratch.build(steps, { mode });
      expect(first).toMatchObject({ code: 0 });
      expect(first.stdout).toContain(`mac${firstBuilder}`);
      const second = await scratch.build(steps, { mode });
      const [, id] = /Got: "([0-9a-f]{64})"\n$/.exec(second.stdout) ?? [];
      expect(scratch.results()).toContain(id);
      expect(second.stdout).not.toContain('saved as');
      expect(second.stderr).toContain('[4/4] cached');
      const log = (text: string) => text.replaceAll(/---> (saved as|using) ("\w+")( from cache)?/g, '$2');
      expect(log(second.stdout)).toBe(log(first.stdout));
      expect(readFileSync(scratch.path(`state/store/result/${id}/rootfs/local/lib/${mode}`), 'utf8')).toBe(
        'hello\n',
      );
    },
  );

  it('what a step writes is in its log and printed while it runs, also half a line', async () => {
    const waits = (file: string) => `until [ -e ~/${file} ]; do sleep 0.01; done`;
    const build = scratch.start(
      spec(run(`echo $((6*7)); ${waits('seen-first')}; printf $((6*8)); ${waits('seen-then')}; echo .`)),
      { mode: 'bind' },
    );
    for (const [when, word] of [
      ['first', '42'],
      ['then', '48'],
    ] as const) {
      await build.untilPrinted(word);
      const [id = ''] = readdirSync(scratch.path('state/store/result-tmp'));
      const unfinished = scratch.path(`state/store/result-tmp/${id}`);
      expect(readFileSync(join(unfinished, 'log'), 'utf8')).toContain(word);
      writeFileSync(join(unfinished, `rootfs/seen-${when}`), '');
    }
    expect((await build.done).stdout).toContain('\n42\n48.\n');
  });

  it('in prefix mode none a step sees the machine’s prefix and no mount is made', async () => {
    const answer = await scratch.build(
      spec(run(`cat ${scratch.prefix}/host; grep -c "${scratch.prefix} fuse" /proc/self/mounts`)),
      { mode: 'none' },
    );
    expect(answer.stdout).toContain('host0\n');
  });

  it('what Homebrew, tar and git do at a prefix works, with another build user busy on the same names', async () => {
    const { prefix } = scratch;
    const busy = scratch.start(
      spec(
        run(
          `echo busy; while [ ! -e ~/stop ]; do mkdir -p ${prefix}/lib/x; touch ${prefix} ${prefix}/lib/x/f; ls -R ${prefix} >/dev/null; rm -rf ${prefix}/lib/x ${prefix}/src; done`,
        ),
      ),
      { uid: secondBuilder },
    );
    await busy.untilPrinted('busy\n');
    const work = await scratch.build(
      spec(
        run(`set -e
          install -d -m 755 ${prefix}
          touch ${prefix}
          mkdir made && mkdir made/lib && echo text > made/lib/file && chmod 750 made && touch -d '2001-02-03 04:05:06' made && tar -cf a.tar -C made ./
          tar -xf a.tar -C ${prefix}
          test "$(stat -c '%a %Y' ${prefix})" = "$(stat -c '%a %Y' made)"
          cat ${prefix}/lib/file
          mkdir ${prefix}/src; cd ${prefix}/src
          git init -q . && git config user.email a@b.c && git config user.name a && echo 1 > f && git add f && git commit -qm one && git log --format=%s
          cd ${prefix}; git init -q . && git -c user.email=a@b.c -c user.name=a commit -q --allow-empty -m two && git log --format=%s
          cd ${prefix}/lib
          for i in $(seq 200); do
            test "$(/bin/pwd)" = ${prefix}/lib
          done
          python3 -c 'import os; print(os.getcwd())'
          echo done`),
      ),
    );
    expect(work.stdout + work.stderr).toContain(`text\none\ntwo\n${prefix}/lib\ndone\n`);
    expect(work.code).toBe(0);
    busy.kill('SIGINT');
    expect((await busy.done).code).toBe(130);
  });

  it('two build users at once on one mount each get their own tree, on results that they share', async () => {
    const steps = (uid: number) =>
      spec(
        '(comment "shared results")',
        run(`echo shared > ${scratch.prefix}/lib/shared`),
        run(`set -e
        touch ${scratch.prefix}/lib/mine-${uid} ${scratch.prefix}/lib/shared ~/mine
        test "$(stat -c %U ${scratch.prefix} ~ ${scratch.prefix}/lib/shared | sort -u)" = mac${uid}
        ls ${scratch.prefix}/lib`),
      );
    const answers = await Promise.all(
      [firstBuilder, secondBuilder].map((uid) => scratch.build(steps(uid), { uid })),
    );
    for (const [i, uid] of [firstBuilder, secondBuilder].entries()) {
      expect(answers[i]).toMatchObject({ code: 0 });
      expect(answers[i]?.stdout).toContain(`mine-${uid}\nshared\n`);
    }
  });

  it('a nested stage builds what a later one copies, secrets are files of the step alone', async () => {
    writeFileSync(scratch.path('token'), 'hunter2');
    const answer = await scratch.build(
      `((build tool ((from base) ${run('mkdir out; echo built > out/tool')}))
        (from base)
        (workdir work)
        (copy (from (build tool)) (src out) (dst ./bin))
        (run (secrets (token (target /token))) (shell "cat bin/tool; pwd; cat ~/token | sha256sum | cut -c1-8"))
        ${run('test ! -s ~/token && echo gone')})`.replace(
        '(target /token)',
        `(target ${scratch.path(`home${firstBuilder}`)}/token)`,
      ),
      { more: [`--secret=token:${scratch.path('token')}`] },
    );
    expect(answer).toMatchObject({ code: 0 });
    expect(answer.stdout).toContain(`built\n${scratch.path(`home${firstBuilder}`)}/work\nf52fbd32\n`);
    expect(answer.stdout).toContain('gone\n');
    expect(answer.stdout + answer.stderr).not.toContain('hunter2');
  });

  it('a failed step is told, not saved, and run again', async () => {
    const failing = spec(run(`echo tried; touch ${scratch.prefix}/left; exit 3`));
    const before = scratch.results();
    for (let i = 0; i < 2; i++) {
      const answer = await scratch.build(failing);
      expect(answer.code).toBe(1);
      expect(answer.stdout).toContain('tried\n');
      expect(answer.stderr).toMatch(/^Build step failed: ".*" failed with exit status 3$/m);
      expect(answer.stderr).toContain('[2/2] failed');
    }
    expect(scratch.results()).toEqual(before);
  });

  it.each(['SIGINT', 'SIGTERM'] as const)(
    '%s ends the step and everything it started, and takes the mount away',
    async (signal) => {
      const build = scratch.start(
        spec(run(`echo started; (setsid sleep 1000 &) ; touch ${scratch.prefix}/x; sleep 1000`)),
      );
      await build.untilPrinted('started\n');
      build.kill(signal);
      expect((await build.done).code).toBe(130);
    },
  );

  it('the mount process killed in a step: the step fails, is not saved, leaves nothing, and the next build works', async () => {
    const before = scratch.results();
    const build = scratch.start(
      spec(
        run(
          `echo started; (setsid sleep 1000 &) ; cd ${scratch.prefix}; while sleep 0.01; do ls > /dev/null; done`,
        ),
      ),
    );
    await build.untilPrinted('started\n');
    process.kill(servingPid(scratch), 'SIGKILL');
    const failed = await build.done;
    expect(failed.code).toBe(1);
    expect(failed.stderr).toMatch(/^Build step failed: .* the mount of .* was lost during the step$/m);
    expect(failed.stderr).not.toContain('    at ');
    expect(processesOf(firstBuilder)).toEqual([]);
    expect(mountsBelow(scratch.directory)).toEqual([]);
    expect(scratch.results()).toEqual(before);
    const again = await scratch.build(spec(run(`touch ${scratch.prefix}/again; ls ${scratch.prefix}`)));
    expect(again).toMatchObject({ code: 0 });
  });

  it('a build killed in a step: its mount goes by itself, and the next build sweeps what is left', async () => {
    const build = scratch.start(spec(run('echo started; (setsid sleep 1000 &) ; sleep 1000')));
    await build.untilPrinted('started\n');
    build.kill('SIGKILL');
    await build.done;
    expect(await scratch.build(spec(run(`touch ${scratch.prefix}/after; echo works`)))).toMatchObject({
      code: 0,
    });
  });

  it('a mount that somebody killed before is replaced', async () => {
    const hold = scratch.start(spec(run(`echo held; sleep 1000`)), { uid: secondBuilder });
    await hold.untilPrinted('held\n');
    process.kill(servingPid(scratch), 'SIGKILL');
    const next = scratch.build(spec(run('echo replaced')));
    expect(await next).toMatchObject({ code: 0 });
    expect((await hold.done).code).toBe(1);
  });

  it.each([
    [
      'an unknown base',
      '((from nowhere))',
      /^obuilder-fs: "nowhere": no such base image in .*; there is base; .*$/m,
      1,
    ],
    ['a spec that does not parse', '((from base) (rum (shell x)))', /^obuilder-fs: <stdin>:1:15: .*$/m, 1],
    [
      'a workdir outside of the step’s places',
      '((from base) (workdir /etc) (run (shell pwd)))',
      /^Build step failed: \/etc: lies outside of .*$/m,
      1,
    ],
    [
      'a secret that was not given',
      '((from base) (run (secrets (t (target x))) (shell pwd)))',
      /^Build step failed: .*"?t"?.*$/m,
      1,
    ],
  ])('%s is one clear line', async (_, text, expected, code) => {
    const answer = await scratch.build(text);
    expect(answer.stderr).toMatch(expected);
    expect(answer.stderr).not.toContain('    at ');
    expect(answer.code).toBe(code);
  });

  it('a whole tree outlives its step unchanged: modes, links, times and names', async () => {
    mkdirSync(scratch.path('context/tree'), { recursive: true });
    const answer = await scratch.build(
      spec(
        run(
          `set -e; cd ${scratch.prefix}; mkdir -p a/b; printf x > 'a/with blank'; ln -s ../lib a/link; ln a/'with blank' a/hard; chmod 2755 a; chmod 600 a/hard; touch -d @1000000000 a/b`,
        ),
        run(
          `cd ${scratch.prefix}; stat -c '%n %a %h %Y %F' a a/b a/hard a/link | sed 's/ [0-9]* s/ T s/'; readlink a/link`,
        ),
      ),
    );
    expect(answer.stdout).toContain('a/b 755 2 1000000000 directory\n');
    expect(answer.stdout).toContain('a/hard 600 2 ');
    expect(answer.stdout).toMatch(/^a 2755 3 /m);
    expect(answer.stdout).toContain('../lib\n');
  });
});

function servingPid(scratch: ScratchBuild): number {
  const record = execFileSync('sh', ['-c', `cat ${join(scratch.stateDir, 'run')}/*.json`], {
    encoding: 'utf8',
  });
  return (JSON.parse(record) as { pid: number }).pid;
}
