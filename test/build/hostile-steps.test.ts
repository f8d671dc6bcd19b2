import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { BuilderOptions, BuildOptions, EmbeddedBuilder } from '../../src/index.ts';
import { processesOf as livingProcessesOf } from '../../src/sandbox/processes-linux.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';
import { verifyStore } from '../../src/store/store-verify.ts';
import { createLoopDisk, removeLeftDisks } from '../helpers/loop-disk.ts';
import { createScratchBuild, processesOf, type ScratchBuild } from '../helpers/scratch-build.ts';
import { whyNoMounts } from '../helpers/scratch-mount.ts';
import {
  createScratchPool,
  poolUids,
  run,
  runBuild,
  servingPid,
  specOf,
  type ScratchPool,
} from '../helpers/scratch-pool.ts';
import { createScratchSandbox, type ScratchSandbox } from '../helpers/scratch-sandbox.ts';

/** A directory that steps see where it is, unlike those in /var/tmp. What killed tests left is taken away first. */
function makeSeenDirectory(): string {
  const parent = '/srv';
  mkdirSync(parent, { recursive: true });
  for (const name of readdirSync(parent)) {
    const [, pid] = /^obuilder-fs-test\.(\d+)\./.exec(name) ?? [];
    if (pid !== undefined && !existsSync(`/proc/${pid}`)) rmSync(join(parent, name), { recursive: true });
  }
  const directory = mkdtempSync(join(parent, `obuilder-fs-test.${process.pid}.`));
  chmodSync(directory, 0o755);
  return directory;
}

/** Everything below a directory as root sees it: type and mode, owner, size, target. */
function listing(directory: string): string {
  const find = ['.', '-printf', '%P %M %U:%G %s %l\\n'];
  return execFileSync('find', find, { cwd: directory, encoding: 'utf8' }).split('\n').sort().join('\n');
}

describe.skipIf(whyNoMounts !== undefined)('a hostile step, alone with the sandbox', () => {
  const [uid, neighbour] = [7781, 7782];
  let scratch: ScratchSandbox;
  let outside: string;

  beforeAll(async () => {
    scratch = await createScratchSandbox([uid, neighbour]);
    outside = makeSeenDirectory();
    mkdirSync(join(outside, 'open'));
    chmodSync(join(outside, 'open'), 0o777);
    writeFileSync(join(outside, 'open/precious'), 'precious', { mode: 0o600 });
  });
  afterEach(async () => expect(await livingProcessesOf(uid)).toEqual([]));
  afterAll(async () => {
    await scratch.close();
    rmSync(outside, { recursive: true });
  });

  it('that is a fork bomb gets no more processes than it may, and keeps no neighbour from working', async () => {
    const bomb = scratch.start('bomb() { bomb & bomb & wait; }; echo boom; bomb 2>/dev/null', {
      options: { limits: { processesMax: 150 } },
    });
    await bomb.untilPrinted('boom');
    const beside = { options: { uids: [neighbour] as const }, tree: 'neighbour' };
    const work = await scratch.run('for i in {1..50}; do /bin/true || exit; done; echo works', beside);
    expect(work).toEqual({ outcome: { status: 'ok' }, output: 'works\n' });
    expect((await livingProcessesOf(uid)).length).toBeLessThanOrEqual(150);
    bomb.cancel();
    expect((await bomb.ended).outcome).toEqual({ status: 'cancelled' });
  });

  it('that leaves daemons of every kind: none of them changes the result any more', async () => {
    const [heart, hydra, inner] = ['heart', 'hydra', 'inner'].map((name) =>
      join(scratch.path('store/daemons/rootfs'), name),
    );
    const again =
      'my $file; open($file, ">>", "hydra"), print($file "x"), close($file), fork && exit while 1';
    const { outcome } = await scratch.run(
      `cd
      nohup sh -c 'while :; do echo x >> heart; done' >/dev/null 2>&1 &
      (setsid sh -c '(trap "" TERM HUP INT QUIT; while :; do echo x >> heart; done) &' >/dev/null 2>&1 &)
      perl -e '${again}' >/dev/null 2>&1 &
      unshare --user --map-root-user --pid --fork sh -c 'while :; do echo x >> inner; done' >/dev/null 2>&1 &
      until [ -s heart ] && [ -s hydra ]; do :; done`,
      { tree: 'daemons' },
    );
    expect(outcome).toEqual({ status: 'ok' });
    const sizes = () =>
      [heart, hydra, inner].map((file = '') => (existsSync(file) ? statSync(file).size : 0));
    const atTheEnd = sizes();
    expect(await livingProcessesOf(uid)).toEqual([]);
    expect(await scratch.run('echo next')).toMatchObject({ output: 'next\n' });
    expect(sizes()).toEqual(atTheEnd);
  });

  it.each([
    ['cache', 'home', 'trap'],
    ['cache', 'home', 'trap/in'],
    ['cache', 'prefix', 'trap/in'],
    ['secret', 'home', 'trap/key'],
    ['secret', 'home', 'trap/precious'],
    ['secret', 'prefix', 'trap/precious'],
  ])(
    'that planted a link where root puts a %s, in the %s at %s: root does not follow',
    async (what, where, name) => {
      const directory = scratch.path('cache');
      mkdirSync(directory, { recursive: true });
      const before = listing(outside);
      const place = where === 'home' ? scratch.homePath : scratch.prefix;
      const target = join(place, name);
      const command = {
        caches: what === 'cache' ? [{ target, directory }] : [],
        secrets: what === 'secret' ? [{ target, value: Buffer.from('secret') }] : [],
      };
      await scratch.run(`ln -sfn ${join(outside, 'open')} ${place}/trap`, { tree: where });
      const { outcome } = await scratch.run('touch ~/ran', { tree: where, command });
      expect(outcome).toMatchObject({
        status: 'failed',
        message: expect.stringContaining('was not run') as string,
      });
      expect(existsSync(scratch.path('store', where, 'rootfs/ran'))).toBe(false);
      expect(listing(outside)).toBe(before);
      expect(readFileSync(join(outside, 'open/precious'), 'utf8')).toBe('precious');
      expect(readdirSync(directory)).toEqual([]);
    },
  );
});

describe.skipIf(whyNoMounts !== undefined)('a hostile step among others', () => {
  const [first, second] = poolUids;
  let scratch: ScratchPool;

  beforeAll(async () => {
    scratch = await createScratchPool();
    const source = fileURLToPath(new URL('../helpers/attack-operations.c', import.meta.url));
    execFileSync('cc', ['-O2', '-Wno-unused-result', '-o', scratch.path('context/attack'), source]);
    writeFileSync(scratch.path('context/server.pl'), SERVER);
    writeFileSync(scratch.path('context/client.pl'), CLIENT);
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  /** Ends the builds of a test that failed half-way. */
  const cancels: AbortController[] = [];

  async function withBuilder(
    options: BuilderOptions,
    use: (builder: EmbeddedBuilder) => Promise<void>,
  ): Promise<void> {
    const builder = await scratch.open(options);
    try {
      await use(builder);
    } finally {
      for (const cancel of cancels.splice(0)) cancel.abort();
      await builder.close();
    }
  }

  const context = () => ({ context: scratch.path('context') });

  /** Starts a build whose step prints `ready`, and waits until it has. */
  async function startReady(
    builder: EmbeddedBuilder,
    spec: string,
    options: Pick<BuildOptions, 'secrets'> = {},
  ) {
    const cancel = new AbortController();
    cancels.push(cancel);
    let tellReady = (): void => undefined;
    const isReady = new Promise<void>((resolve) => (tellReady = resolve));
    const ended = runBuild(builder, spec, {
      ...context(),
      ...options,
      signal: cancel.signal,
      onOutput: (output) => {
        if (output.includes('ready\n')) tellReady();
      },
    });
    const early = ended.then(({ result, output }) => {
      throw new Error(`it ended without being ready: ${JSON.stringify(result)}\n${output}`);
    });
    await Promise.race([isReady, early]);
    return { ended, cancel: () => cancel.abort() };
  }

  /** What steps that wait for it wait for, in the home of every step that runs. */
  function letGo(): void {
    const running = scratch.path('state/store/result-tmp');
    for (const id of readdirSync(running)) writeFileSync(join(running, id, 'rootfs/go'), '');
  }

  it('reads nothing of another user’s step, nor of the mount process, in /proc', async () => {
    const sesame = `sesame-${randomUUID()}`;
    await withBuilder({}, async (builder) => {
      const script = 'secret=$(cat ~/token); echo ready; sleep 1000; true';
      const victim = await startReady(
        builder,
        specOf(
          `(env TOKEN ${sesame})`,
          `(run (secrets (token (target ${scratch.homePath}/token))) (shell ${JSON.stringify(script)}))`,
        ),
        { secrets: { token: sesame } },
      );
      const pids = poolUids.flatMap(processesOf);
      expect(pids.map((pid) => readFileSync(`/proc/${pid}/environ`, 'utf8')).join()).toContain(sesame);
      const { output } = await runBuild(
        builder,
        specOf(
          run(`exec 2>/dev/null
          stat -c %u /proc/[0-9]* | sort -u
          cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep -a 'sesam[e]-'
          for pid in ${[...pids, servingPid(scratch), 1].join(' ')}; do
            cat /proc/$pid/environ /proc/$pid/cmdline /proc/$pid/root/etc/passwd /proc/$pid/root$HOME/token
            head -c 1 /proc/$pid/mem; cat /proc/$pid/maps; ls /proc/$pid/fd /proc/$pid/cwd
          done
          unshare --user --map-root-user --pid --fork --mount-proc sh -c 'cat /proc/[0-9]*/environ' |
            tr '\\0' '\\n' | grep -a 'sesam[e]-'
          echo looked`),
        ),
        context(),
      );
      expect(output).toBe(`${second}\nlooked\n`);
      victim.cancel();
      await victim.ended;
    });
  });

  it('neither ends, stops nor traces the mount process, its neighbours or what holds its own namespaces', async () => {
    await withBuilder({}, async (builder) => {
      const wait = `echo ready; until [ -e ~/go ]; do sleep 0.05; done; touch ${scratch.prefix}/worked`;
      const victim = await startReady(builder, specOf(run(wait)));
      const pid = servingPid(scratch);
      const attack = `./attack daemon ${pid}; ./attack daemon 1; kill -STOP -1; kill -KILL -1`;
      const { output } = await runBuild(
        builder,
        specOf('(copy (src attack) (dst ./attack))', run(attack)),
        context(),
      );
      expect(output).toMatch(/^kill\(pid, SIGKILL\): ESRCH$/m); // the mount process
      expect(output).toMatch(/^kill\(pid, SIGKILL\): EPERM$/m); // what holds the namespaces
      expect(output).not.toMatch(/: done$/m);
      expect(servingPid(scratch)).toBe(pid);
      const status = readFileSync(`/proc/${pid}/status`, 'utf8');
      expect(status).toMatch(/^State:\s+[SR]/m);
      expect(status).toMatch(/^TracerPid:\s+0$/m);
      letGo();
      const { id } = await victim.ended;
      expect(existsSync(join(scratch.rootfs(id), 'local/worked'))).toBe(true);
    });
  });

  it('changes nothing in the scoreboard and in the store, and reads nothing of other builds there', async () => {
    const seen = makeSeenDirectory();
    const state = join(seen, 'state');
    mkdirSync(join(state, 'scoreboard'), { recursive: true });
    try {
      const options = { stateDir: state, baseDir: scratch.path('state/images') };
      await withBuilder(options, async (builder) => {
        const { id } = await runBuild(
          builder,
          specOf(run('echo of another build; echo precious > ~/precious; chmod 666 ~/precious')),
          context(),
        );
        const kept = () =>
          ['scoreboard', `store/result/${id}`].map((name) => listing(join(state, name))).join('\n') +
          ['.', 'scoreboard', 'store', 'store/result', 'store/cache', 'store/state', 'run', 'sandbox']
            .map((name) => `${name} ${statSync(join(state, name)).mode.toString(8)}`)
            .join('\n');
        const before = kept();
        const { output } = await runBuild(
          builder,
          specOf(
            run(`exec 2>/dev/null
            for name in . scoreboard store store/result store/result/${id} store/result/${id}/rootfs store/cache \\
              store/state store/state/db run sandbox; do
              d=${state}/$name
              touch $d/planted; mkdir $d/planted; ln -s /etc $d/planted
              ln -sfn /etc $d/${first}; ln -sfn /etc $d/${second}; chmod 777 $d; mv $d ~/stolen
              cat $d/log $d/precious; cp -r $d/* ~/stolen; rm -rf $d/*
            done
            echo changed > ${state}/store/result/${id}/rootfs/precious
            unshare --user --map-root-user --mount sh -c \\
              'mount -o remount,rw /; mount -o remount,bind,rw /; touch ${state}/planted ${state}/store/planted'
            echo tried`),
          ),
          context(),
        );
        expect(output).toBe('tried\n');
        expect(kept()).toBe(before);
        expect(execFileSync('find', [state, '-name', 'planted'], { encoding: 'utf8' })).toBe('');
        expect(readFileSync(join(state, `store/result/${id}/rootfs/precious`), 'utf8')).toBe('precious\n');
      });
    } finally {
      rmSync(seen, { recursive: true });
    }
  });

  it('leads nothing out of the store or of its home by “..” in names and targets', async () => {
    const found = (name: string) =>
      execFileSync('find', ['.', '-name', name], { cwd: scratch.directory, encoding: 'utf8' })
        .split('\n')
        .filter((line) => line !== '');
    await withBuilder({ prefixMode: 'bind' }, async (builder) => {
      const build = async (field: string, script: string) => {
        const spec = specOf(`(run ${field} (shell ${JSON.stringify(script)}))`);
        const secrets = { '../../escaped': 'secret' };
        return (await runBuild(builder, spec, { ...context(), secrets })).result.status;
      };
      const names = ['../../escaped', '..', '../../../context'];
      const caches = names.map((name, i) => `(${name} (target ~/c${i}))`).join(' ');
      expect(await build(`(cache ${caches})`, 'touch ~/c0/planted ~/c1/planted ~/c2/planted')).toBe('saved');
      const inside = /^\.\/state\/store\/cache\/c-[^/]+\/planted$/;
      expect(found('planted').filter((path) => inside.test(path))).toHaveLength(names.length);
      for (const target of ['../escaped', '/../escaped', `${scratch.homePath}/../escaped`]) {
        const status = await build(`(cache (c (target ${target})))`, `touch ${target}/planted`);
        expect(status, target).toBe('failed');
        await build(`(secrets (../../escaped (target ${target})))`, 'true'); // may be with the others, elsewhere
      }
      expect(found('planted')).toHaveLength(names.length);
      expect(found('escaped')).toEqual([]);
    });
  });

  it('passes nothing to a neighbour: they meet at no abstract socket, no port and no socket in a cache of both', async () => {
    const files = '(copy (src server.pl client.pl) (dst ./))';
    const step = (cache: string, script: string) =>
      specOf(files, `(run (cache (${cache} (target ~/cache))) (shell ${JSON.stringify(script)}))`);
    await withBuilder({ prefixMode: 'bind' }, async (builder) => {
      const both =
        'perl server.pl > log & until grep -qs ready log || ! kill -0 $!; do :; done; perl client.pl; touch ~/go; wait';
      const control = await runBuild(builder, step('control', both), context());
      expect(control.output).toBe('abstract: met\ncache: met\nport: met\n');
      const server = await startReady(builder, step('shared', 'perl server.pl'));
      const client = await runBuild(builder, step('shared', 'perl client.pl'), context());
      expect(client.output).toBe('abstract: alone\ncache: alone\nport: alone\n');
      letGo();
      expect((await server.ended).output).toBe('ready\nnobody came\n');
    });
  });

  it('that fills the disk fails; the store is in order, has its room back, and builds on', async () => {
    removeLeftDisks();
    const disk = createLoopDisk('ext4', 64);
    try {
      const options = { stateDir: join(disk.path, 'state'), baseDir: scratch.path('state/images') };
      await withBuilder({ ...options, prefixMode: 'bind' }, async (builder) => {
        await runBuild(builder, specOf(), context());
        const free = disk.freeBytes();
        const fill = 'cat /dev/zero > ~/fill; cat /dev/zero > /tmp/fill';
        const { result, output } = await runBuild(builder, specOf(run(fill)), context());
        expect(result).toMatchObject({ status: 'failed' });
        expect(output).toContain('No space left on device');
        expect(disk.freeBytes()).toBeGreaterThan(free - 2 ** 20);
        const after = await runBuild(builder, specOf(run('echo works > ~/works')), context());
        expect(readFileSync(join(disk.path, `state/store/result/${after.id}/rootfs/works`), 'utf8')).toBe(
          'works\n',
        );
      });
      const store = { root: join(disk.path, 'state/store'), copier: createRsyncCopier() };
      expect(await verifyStore(store, { dryRun: true })).toEqual([]);
    } finally {
      disk.remove();
    }
  });
});

/** The ways to meet that two steps might have. */
const ADDRESSES = `
use strict; use Socket;
my %address = (
  abstract => [AF_UNIX, pack_sockaddr_un("\\0obuilder-fs-test-hostile")],
  cache => [AF_UNIX, pack_sockaddr_un("$ENV{HOME}/cache/socket")],
  port => [AF_INET, pack_sockaddr_in(4711, INADDR_LOOPBACK)],
);
`;
const SERVER = `${ADDRESSES}
my ($readable, @sockets) = ('');
for (values %address) {
  my ($domain, $address) = @$_;
  my $socket;
  socket($socket, $domain, SOCK_STREAM, 0) && bind($socket, $address) && listen($socket, 5) or die $!;
  push @sockets, $socket;
  vec($readable, fileno($socket), 1) = 1;
}
$| = 1;
print "ready\\n";
my $came = 0;
until (-e "$ENV{HOME}/go") { $came ||= select(my $ready = $readable, undef, undef, 0.05) > 0 }
print $came ? "somebody came\\n" : "nobody came\\n";
`;
const CLIENT = `${ADDRESSES}
for (sort keys %address) {
  my ($domain, $address) = @{$address{$_}};
  socket(my $socket, $domain, SOCK_STREAM, 0) or die $!;
  print "$_: ", connect($socket, $address) ? 'met' : 'alone', "\\n";
}
`;

describe.skipIf(whyNoMounts !== undefined)('what a hostile step prints', () => {
  let scratch: ScratchBuild;

  beforeAll(async () => {
    scratch = await createScratchBuild();
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  it('beyond --max-output ends it, and is neither printed nor kept', async () => {
    const before = await scratch.build('((from base))');
    expect(before.code).toBe(0);
    const results = scratch.results();
    const { code, stdout, stderr } = await scratch.build(`((from base) ${run('yes')})`, {
      mode: 'bind',
      more: ['--max-output=1M'],
    });
    expect(code).toBe(1);
    expect(stderr).toContain('was stopped: it wrote more than --max-output=1M');
    expect(stdout.length).toBeLessThan(2 ** 20 + 4096);
    expect(scratch.results()).toEqual(results);
  });

  it('is in the log byte for byte, escape sequences too, as OBuilder has it', async () => {
    const script = String.raw`printf '\033]0;title\007\033[2J\033P+q\033\\text\r\n'`;
    const { stdout } = await scratch.build(`((from base) ${run(script)})`, { mode: 'bind' });
    expect(stdout).toContain('\x1b]0;title\x07\x1b[2J\x1bP+q\x1b\\text\r\n');
  });
});
