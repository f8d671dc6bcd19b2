import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createDirectoryFetcher } from '../../src/fetcher/directory-fetcher.ts';
import { createRsyncCopier } from '../../src/store/rsync-copier.ts';

let root: string;
let baseDirectory: string;
let rootfs: string;

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'images-'));
  baseDirectory = join(root, 'images');
  rootfs = join(root, 'rootfs');
  mkdirSync(rootfs);
  makeImage(baseDirectory, 'macos-homebrew-ocaml-4.14');
});

afterEach(() => rmSync(root, { recursive: true, force: true }));

function makeImage(directory: string, name: string): void {
  mkdirSync(join(directory, name), { recursive: true });
  writeFileSync(join(directory, name, '.obuilder_profile.sh'), `# ${name}\n`);
}

async function fetch(name: string, directory = baseDirectory): Promise<unknown> {
  const fetcher = createDirectoryFetcher({ baseDirectory: directory, copier: createRsyncCopier() });
  return await fetcher.fetch(name, rootfs, () => undefined, new AbortController().signal);
}

describe('directory base images', () => {
  it('are copied and give no environment', async () => {
    expect(await fetch('macos-homebrew-ocaml-4.14')).toEqual([]);
    expect(readFileSync(join(rootfs, '.obuilder_profile.sh'), 'utf8')).toBe('# macos-homebrew-ocaml-4.14\n');
  });

  it('may be named by a link to another image', async () => {
    symlinkSync('macos-homebrew-ocaml-4.14', join(baseDirectory, 'macos-homebrew'));
    await fetch('macos-homebrew');
    expect(readFileSync(join(rootfs, '.obuilder_profile.sh'), 'utf8')).toBe('# macos-homebrew-ocaml-4.14\n');
  });

  it('are found when the base directory is itself reached through a link', async () => {
    symlinkSync(baseDirectory, join(root, 'link'));
    expect(await fetch('macos-homebrew-ocaml-4.14', join(root, 'link'))).toEqual([]);
  });

  it.each(['', '.', '..', '../images/macos-homebrew-ocaml-4.14', 'a/b', 'x\0', 'missing', 'n'.repeat(300)])(
    'are none of the name %j',
    async (name) => {
      const error = await fetch(name).catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'UNKNOWN_BASE' });
      expect((error as Error).message).toContain('there is macos-homebrew-ocaml-4.14');
      expect((error as Error).message).not.toContain('\n');
    },
  );

  it('are none through a link that leads out of the base directory', async () => {
    makeImage(root, 'elsewhere');
    symlinkSync(join(root, 'elsewhere'), join(baseDirectory, 'out'));
    symlinkSync('loop', join(baseDirectory, 'loop'));
    await expect(fetch('out')).rejects.toMatchObject({ code: 'UNKNOWN_BASE' });
    await expect(fetch('loop')).rejects.toMatchObject({ code: 'UNKNOWN_BASE' });
  });

  it('need no more than to be a directory', async () => {
    mkdirSync(join(baseDirectory, 'plain'));
    writeFileSync(join(baseDirectory, 'file'), '');
    expect(await fetch('plain')).toEqual([]);
    await expect(fetch('file')).rejects.toMatchObject({ code: 'UNKNOWN_BASE' });
  });

  it("are not a person's home beside them, where only marked ones count", async () => {
    mkdirSync(join(baseDirectory, 'alice'));
    const fetcher = createDirectoryFetcher({ baseDirectory, markedOnly: true, copier: createRsyncCopier() });
    const fetched = fetcher.fetch('alice', rootfs, () => undefined, new AbortController().signal);
    await expect(fetched).rejects.toMatchObject({
      code: 'UNKNOWN_BASE',
      hint: expect.stringContaining('.obuilder_profile.sh') as unknown,
    });
  });

  it('are none where the base directory is missing', async () => {
    await expect(fetch('x', join(root, 'missing'))).rejects.toThrow('there is none');
  });
});
