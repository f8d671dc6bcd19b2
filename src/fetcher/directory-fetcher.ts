import { access, readdir, realpath } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import type { Fetcher, ImageEnv } from './fetcher.ts';

/** What a directory must hold to be a base image: steps source it. A person's home beside the images is none. */
const IMAGE_MARKER = '.obuilder_profile.sh';

const LISTED_MAX = 20;

export interface DirectoryFetcherOptions {
  /** Base image NAME is its entry NAME: a directory, or a link to another one in it. */
  readonly baseDirectory: string;
  /** Copies the content of a directory into an existing empty one, as the store's TreeCopier does. */
  readonly copier: { copy(source: string, target: string, signal: AbortSignal): Promise<void> };
}

/** Takes base images from directories of this machine. They give no environment. */
export function createDirectoryFetcher({ baseDirectory, copier }: DirectoryFetcherOptions): Fetcher {
  return {
    async fetch(name, rootfs, _output, signal): Promise<ImageEnv> {
      const image = await findImage(baseDirectory, name);
      if (image === undefined) throw await unknownBase(baseDirectory, name);
      await copier.copy(image, rootfs, signal);
      return [];
    },
  };
}

/** The real directory of the image. Names come from strangers' specs: none leads out of the base directory. */
async function findImage(baseDirectory: string, name: string): Promise<string | undefined> {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) return undefined;
  try {
    const image = await realpath(join(baseDirectory, name));
    if (dirname(image) !== (await realpath(baseDirectory))) return undefined;
    await access(join(image, IMAGE_MARKER));
    return image;
  } catch (error) {
    if (NOT_FOUND.has(errnoCode(error))) return undefined;
    throw error;
  }
}

const NOT_FOUND = new Set<string | undefined>(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG']);

async function unknownBase(baseDirectory: string, name: string): Promise<ObuilderError> {
  const images = await listImages(baseDirectory);
  const shown = images.slice(0, LISTED_MAX).join(', ');
  const more = images.length > LISTED_MAX ? ` and ${images.length - LISTED_MAX} more` : '';
  return new ObuilderError(
    'UNKNOWN_BASE',
    `${JSON.stringify(name)}: no such base image in ${baseDirectory}; there is ${shown === '' ? 'none' : shown + more}`,
    { hint: `a base image is a directory there that holds ${IMAGE_MARKER}` },
  );
}

async function listImages(baseDirectory: string): Promise<string[]> {
  try {
    const names = (await readdir(baseDirectory)).sort();
    const found = await Promise.all(names.map((name) => findImage(baseDirectory, name)));
    return names.filter((_, i) => found[i] !== undefined);
  } catch (error) {
    if (NOT_FOUND.has(errnoCode(error))) return [];
    throw error;
  }
}
