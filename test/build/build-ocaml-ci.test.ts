import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createScratchBuild, firstBuilder, type ScratchBuild } from '../helpers/scratch-build.ts';
import { whyNoMounts } from '../helpers/scratch-mount.ts';

/**
 * The operations of a spec of ocaml-ci's, with tools that every machine has in the place of opam and dune: what is tested is
 * where things are (home, caches, prefix), as whom, and what is there in the next step.
 */
describe.skipIf(whyNoMounts !== undefined)('a spec of the shape that ocaml-ci sends', () => {
  let scratch: ScratchBuild;
  let home: string;

  beforeAll(async () => {
    scratch = await createScratchBuild();
    home = scratch.path(`home${firstBuilder}`);
    const image = scratch.path('state/images/base');
    mkdirSync(`${image}/local/bin`, { recursive: true });
    writeFileSync(`${image}/local/bin/tool-2.1`, '#!/bin/sh\necho "tool: $*"\n', { mode: 0o755 });
    mkdirSync(`${image}/repository`);
    const git = (...args: string[]) => execFileSync('git', ['-C', `${image}/repository`, ...args]);
    git('init', '-q');
    git('-c', 'user.name=a', '-c', 'user.email=a@b.c', 'commit', '-q', '--allow-empty', '-m', 'packages');
    const context = scratch.path('context');
    writeFileSync(`${context}/hello.opam`, 'opam-version: "2.0"\n');
    writeFileSync(`${context}/Makefile`, 'all: hello.opam\n\t@echo built in $(CURDIR)\n');
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  const specOf = (mode: string) => `((from base)
    (env MODE ${mode})
    (comment base)
    (user (uid 1000) (gid 1000))
    (env CLICOLOR_FORCE 1)
    (env OPAMCOLOR always)
    (run (shell "ln -f ~/local/bin/tool-2.1 ~/local/bin/tool"))
    (run (shell "tool init --reinit -ni; test $CLICOLOR_FORCE$OPAMCOLOR = 1always"))
    (run (cache (archives (target ${home}/.opam/download-cache)) (homebrew (target ${home}/Library/Caches/Homebrew)))
         (network host)
         (shell "cd ~/repository && git log --format=%s -n1 && echo one > ~/.opam/download-cache/a && echo two > ~/Library/Caches/Homebrew/b"))
    (copy (src hello.opam) (dst ./src/./))
    (run (network host) (shell "cat './src/hello.opam' && pwd"))
    (env DEPS "a.1 b.2")
    (run (cache (archives (target ~/.opam/download-cache)))
         (network host)
         (shell "cat ~/.opam/download-cache/a && test ! -e ~/Library/Caches/Homebrew/b && tool install $DEPS"))
    (copy (src .) (dst ./src))
    (run (shell "cd ./src && make && ls -A ~ | tr '\\\\n' ' '")))`;

  it.each(['tree', 'shared', 'bind'])('builds in prefix mode %s, and then comes from the store', async (mode) => {
    const first = await scratch.build(specOf(mode), { mode });
    expect(first).toMatchObject({ code: 0 });
    for (const said of [
      'tool: init --reinit -ni\n',
      'packages\n',
      `opam-version: "2.0"\n${home}\n`,
      'one\ntool: install a.1 b.2\n',
      `built in ${home}/src\n`,
    ])
      expect(first.stdout).toContain(said);
    const second = await scratch.build(specOf(mode), { mode });
    expect(second.stdout).not.toContain('saved as');
    expect(second.stdout).toContain(`built in ${home}/src\n`);
  });

  it('examples/ocaml-ci.spec is such a spec', async () => {
    const text = readFileSync(new URL('../../examples/ocaml-ci.spec', import.meta.url), 'utf8');
    const answer = await scratch.build(text);
    expect(answer.stderr).toContain('"macos-homebrew-ocaml-4.14": no such base image');
    expect(answer.code).toBe(1);
  });
});
