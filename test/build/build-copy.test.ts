import { mkdirSync, readdirSync, rmSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createScratchBuild, firstBuilder, type ScratchBuild } from '../helpers/scratch-build.ts';
import { whyNoMounts, type CommandAnswer } from '../helpers/scratch-mount.ts';

const isLong = process.env['OBUILDER_FS_LONG'] === '1';
const FILES = isLong ? 100_000 : 2_000;
/** In both forms more than the memory that the build may take. */
const LARGE_BYTES = isLong ? 5 * 2 ** 30 : 400 * 2 ** 20;
const RSS_MAX_BYTES = 350 * 2 ** 20;
const TIMEOUT_MS = isLong ? 1_800_000 : 120_000;

describe.skipIf(whyNoMounts !== undefined)('copy with real build users', () => {
  let scratch: ScratchBuild;

  beforeAll(async () => {
    scratch = await createScratchBuild();
  });
  afterEach(() => expect(scratch.leftovers()).toEqual([]));
  afterAll(() => scratch.close());

  const spec = (...ops: string[]) => `((from base) ${ops.join('\n')})`;
  const run = (script: string) => `(run (shell ${JSON.stringify(script)}))`;

  function makeContext(name: string): string {
    const context = scratch.path(name);
    mkdirSync(context, { recursive: true });
    return context;
  }

  /** Builds and answers what it said and the most memory that the build's process had. */
  async function measured(text: string, context: string): Promise<CommandAnswer & { rssBytes: number }> {
    const report = 'process.on("exit",()=>console.error("peak",process.resourceUsage().maxRSS))';
    const before = process.env['NODE_OPTIONS'];
    process.env['NODE_OPTIONS'] = `--import=data:text/javascript,${encodeURIComponent(report)}`;
    const build = scratch.start(text, { mode: 'bind', context });
    if (before === undefined) delete process.env['NODE_OPTIONS'];
    else process.env['NODE_OPTIONS'] = before;
    const answer = await build.done;
    const [, kibibytes] = /^peak (\d+)$/m.exec(answer.stderr) ?? [];
    return { ...answer, rssBytes: Number(kibibytes) * 1024 };
  }

  it(
    `sends ${FILES} files without taking memory for their contents`,
    async () => {
      const context = makeContext('many');
      for (let i = 0; i < FILES; i++) {
        const directory = join(context, `d${i % 100}`);
        if (i < 100) mkdirSync(directory);
        writeFileSync(join(directory, `f${i}`), `content ${i}`);
      }
      const answer = await measured(
        spec('(copy (src .) (dst ./src))', run('find src -type f | wc -l; cat src/d99/f1999')),
        context,
      );
      expect(answer.stdout).toContain(`${FILES}\ncontent 1999`);
      expect(answer.code).toBe(0);
      expect(answer.rssBytes).toBeLessThan(isLong ? 2 * RSS_MAX_BYTES : RSS_MAX_BYTES);
      rmSync(context, { recursive: true });
    },
    TIMEOUT_MS,
  );

  it(
    `streams a file of ${LARGE_BYTES / 2 ** 20} MiB`,
    async () => {
      const context = makeContext('large');
      writeFileSync(join(context, 'large'), 'start');
      truncateSync(join(context, 'large'), LARGE_BYTES);
      const answer = await measured(
        spec('(copy (src large) (dst ./large))', run('stat -c %s large; head -c 5 large; rm large')),
        context,
      );
      expect(answer.stdout).toContain(`${LARGE_BYTES}\nstart`);
      expect(answer.code).toBe(0);
      expect(answer.rssBytes).toBeLessThan(RSS_MAX_BYTES);
      rmSync(context, { recursive: true });
    },
    TIMEOUT_MS,
  );

  it('a source that changes between hashing and sending fails the step in one line, and nothing is saved', async () => {
    const context = makeContext('changing');
    writeFileSync(join(context, 'file'), 'before');
    utimesSync(join(context, 'file'), 1000, 1000);
    // Another build's step has the build user, so the copy waits between hashing and sending.
    const holder = scratch.start(spec(run('echo holding; sleep 1000')), { mode: 'bind' });
    await holder.untilPrinted('holding\n');
    const before = scratch.results();
    const copying = scratch.start(spec('(copy (src file) (dst ./file))'), { mode: 'bind', context });
    await copying.untilPrinted('/: (copy (src file)');
    await expect
      .poll(() => readdirSync(`${scratch.stateDir}/store/result-tmp`).length, { timeout: 30_000 })
      .toBe(2);
    writeFileSync(join(context, 'file'), 'after!');
    utimesSync(join(context, 'file'), 1000, 1000);
    holder.kill('SIGINT');
    await holder.done;
    const answer = await copying.done;
    expect(answer.code).toBe(1);
    expect(answer.stderr).toMatch(
      /^Build step failed: \S+\/file changed while it was being copied(; [^\n]*)?$/m,
    );
    expect(scratch.results()).toEqual(before);
  });

  it('directories that are there keep owner, mode and time, in the home and at the prefix', async () => {
    const context = makeContext('kept');
    mkdirSync(join(context, 'dir/sub'), { recursive: true });
    writeFileSync(join(context, 'dir/sub/new'), 'new');
    const { prefix } = scratch;
    const directories = `~/dir ~/dir/sub ${prefix}/dir ${prefix}/dir/sub`;
    const stat = run(`stat -c '%U %a %Y' ${directories}; cat ~/dir/sub/new ${prefix}/dir/sub/new`);
    const answer = await scratch.build(
      spec(
        run(`mkdir -p ${directories}; chmod 2751 ${directories}; touch -d @1000000000 ${directories}`),
        '(copy (src dir) (dst ./))',
        `(copy (src dir) (dst ${prefix}/))`,
        stat,
      ),
      { context },
    );
    expect(answer).toMatchObject({ code: 0 });
    const line = `mac${firstBuilder} 2751 1000000000\n`;
    expect(answer.stdout).toContain(`${line.repeat(4)}newnew`);
  });

  it.each(['/etc/x', '/../etc/x', '../x', '/usr/lib/x'])('a target at %s cannot leave the places', async (dst) => {
    const answer = await scratch.build(spec(`(copy (src hello.txt) (dst ${dst}))`), { mode: 'bind' });
    expect(answer.code).toBe(1);
    expect(answer.stderr).toMatch(/^Build step failed: [^\n]+$/m);
  });

  it('a link that a step planted does not lead a copy out of what the build user may write', async () => {
    const outside = scratch.path('outside');
    mkdirSync(outside, { mode: 0o755 });
    const answer = await scratch.build(
      spec(run(`ln -s ${outside} out`), '(copy (src hello.txt) (dst ./out/))'),
      { mode: 'bind' },
    );
    expect(answer.code).toBe(1);
    expect(readdirSync(outside)).toEqual([]);
  });
});
