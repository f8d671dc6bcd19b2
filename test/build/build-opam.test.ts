import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { runCommand } from '../../src/os/exec.ts';
import { createScratchBuild, type ScratchBuild } from '../helpers/scratch-build.ts';
import { mainProgram, whyNoMounts } from '../helpers/scratch-mount.ts';

const users = [7820, 7821] as const;
const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const hasOpam = () => ['opam', 'dune', 'ocamlfind'].every((tool) => spawnSync('which', [tool]).status === 0);

/**
 * A spec of ocaml-ci's with the real opam, OCaml and dune, of which only opam comes out of the prefix. The opam repository and the
 * archive of its one package are files of the base image, so nothing needs a network. Left out is `opam update --depexts`: on Linux it
 * asks apt, which is root's. Part of the long form, which installs the tools.
 */
describe.skipIf(whyNoMounts !== undefined || !isLong)('a spec of ocaml-ci’s with opam', () => {
  let scratch: ScratchBuild;
  let home: string;

  beforeAll(async () => {
    if (!hasOpam())
      execFileSync('apt-get', ['install', '-qqy', 'opam', 'ocaml-nox', 'ocaml-findlib', 'ocaml-dune']);
    scratch = await createScratchBuild(users);
    home = scratch.path('home');
    const image = scratch.path('state/images/base');
    mkdirSync(join(image, 'local/bin'));
    copyFileSync('/usr/bin/opam', join(image, 'local/bin/opam-2.1'));
    makeRepository(image);
    makeProject(scratch.path('context'));
  }, 600_000);
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  /** An opam repository with one library, `greet`, whose archive lies in the home too. */
  function makeRepository(image: string): void {
    write(join(image, 'archives/greet/dune-project'), '(lang dune 2.0)\n(name greet)\n(package (name greet))\n');
    write(join(image, 'archives/greet/dune'), '(library (public_name greet))\n');
    write(join(image, 'archives/greet/greet.ml'), 'let hello name = "hello, " ^ name\n');
    const archive = join(image, 'archives/greet.tgz');
    execFileSync('tar', ['-C', join(image, 'archives'), '-czf', archive, 'greet']);
    const sha256 = createHash('sha256').update(readFileSync(archive)).digest('hex');
    const repository = join(image, 'opam-repository');
    write(join(repository, 'repo'), 'opam-version: "2.0"\n');
    write(
      join(repository, 'packages/greet/greet.1.0/opam'),
      `opam-version: "2.0"
build: [["dune" "build" "-p" name "-j" jobs]]
setenv: [OCAMLPATH += "%{lib}%"]
url { src: "file://${home}/archives/greet.tgz" checksum: "sha256=${sha256}" }
`,
    );
    const git = (...args: string[]) => execFileSync('git', ['-C', repository, ...args]);
    git('init', '-q');
    git('add', '.');
    git('-c', 'user.name=a', '-c', 'user.email=a@b.c', 'commit', '-q', '-m', 'one package');
  }

  function makeProject(context: string): void {
    write(
      join(context, 'hello.opam'),
      'opam-version: "2.0"\ndepends: ["greet"]\nbuild: [["dune" "build" "-p" name]]\n',
    );
    write(join(context, 'dune-project'), '(lang dune 2.0)\n(name hello)\n');
    write(join(context, 'bin/dune'), '(executable (public_name hello) (libraries greet))\n');
    write(join(context, 'bin/hello.ml'), 'let () = print_endline (Greet.hello Sys.argv.(1))\n');
  }

  const spec = (...more: string[]) => `((from base)
    (comment base)
    (user (uid 1000) (gid 1000))
    (env CLICOLOR_FORCE 1)
    (env OPAMCOLOR always)
    (run (shell "ln -f ~/local/bin/opam-2.1 ~/local/bin/opam"))
    (run (shell "test $(command -v opam) = ${scratch.prefix}/bin/opam && opam init --bare -n --disable-sandboxing -k local default ~/opam-repository"))
    (run (shell "opam init --reinit -ni && opam switch create default --empty"))
    (run (shell "opam exec -- ocaml -version && opam --version"))
    (run (cache (opam-archives (target ${home}/.opam/download-cache)))
         (shell "cd ~/opam-repository && git cat-file -e HEAD && git log --no-patch -n1 --format=%s && opam update -u"))
    (copy (src hello.opam) (dst ./src/./))
    (run (shell "opam pin add -yn hello.dev './src/./'"))
    (env DEPS "greet.1.0")
    (run (cache (opam-archives (target ~/.opam/download-cache)))
         (shell "opam install --cli=2.1 --depext-only -y hello.dev $DEPS"))
    (run (cache (opam-archives (target ${home}/.opam/download-cache)))
         (shell "opam install -y $DEPS && find ~/.opam/download-cache -type f | wc -l"))
    (copy (src .) (dst ./src))
    (run (shell "cd ./src && opam exec -- dune build @install @check @runtest"))
    ${more.join('\n')})`;
  const useProgram = '(run (shell "./src/_build/install/default/bin/hello \\"$(id -un)\\""))';

  const build = async (uid: number, text: string) => {
    write(scratch.path('spec'), text);
    const flags = [`--state-dir=${scratch.stateDir}`, `--prefix=${scratch.prefix}`, `--home-path=${home}`];
    return runCommand(
      [process.execPath, mainProgram, 'build', '-f', scratch.path('spec'), `--uid=${uid}`, ...flags, scratch.path('context')],
      { okCodes: [0, 1] },
    );
  };

  it('builds, comes from the store as a whole, and its program runs as another build user', async () => {
    const first = await build(users[0], spec());
    expect(first.stdout + first.stderr).toMatch(/The OCaml toplevel[^]*one package\n[^]*greet[^]*\n1\n---> saved as/);
    expect(first.exitCode).toBe(0);
    const second = await build(users[0], spec());
    expect(second.exitCode).toBe(0);
    expect(second.stdout).not.toContain('saved as');
    const other = await build(users[1], spec(useProgram));
    expect(other.stdout).toMatch(/hello, mac7821\n---> saved as "\w+"\n/);
    expect(other.stdout.match(/saved as/g)).toHaveLength(1);
  }, 600_000);
});

function write(file: string, text: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
