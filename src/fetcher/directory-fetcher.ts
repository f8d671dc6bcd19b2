import { access, readdir, realpath, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { errnoCode, ObuilderError } from '../errors.ts';
import type { Fetcher, ImageEnv } from './fetcher.ts';

/** What steps source at their start: it tells a base image from a person's home. */
const IMAGE_MARKER = '.obuilder_profile.sh';

const LISTED_MAX = 20;

export interface DirectoryFetcherOptions {
  /** Base image NAME is its entry NAME: a directory, or a link to another one in it. */
  readonly baseDirectory: string;
  /** Takes only directories with an .obuilder_profile.sh: for a base directory in which people's homes are too. */
  readonly markedOnly?: boolean;
  /** Copies the content of a directory into an existing empty one, as the store's TreeCopier does. */
  readonly copier: { fill(source: string, target: string, signal: AbortSignal): Promise<void> };
}

/** Takes base images from directories of this machine. They give no environment. */
export function createDirectoryFetcher({ copier, ...images }: DirectoryFetcherOptions): Fetcher {
  return {
    async fetch(name, rootfs, _output, signal): Promise<ImageEnv> {
      const image = await findImage(images, name);
      if (image === undefined) throw await unknownBase(images, name);
      await copier.fill(image, rootfs, signal);
      return [];
    },
  };
}

/** The real directory of the image. Names come from strangers' specs: none leads out of the base directory. */
type Images = Pick<DirectoryFetcherOptions, 'baseDirectory' | 'markedOnly'>;

async function findImage(
  { baseDirectory, markedOnly = false }: Images,
  name: string,
): Promise<string | undefined> {
  if (name === '' || name === '.' || name === '..' || /[/\0]/.test(name)) return undefined;
  try {
    const image = await realpath(join(baseDirectory, name));
    const base = await realpath(baseDirectory);
    if (dirname(image) !== base || !(await stat(image)).isDirectory()) return undefined;
    if (markedOnly) await access(join(image, IMAGE_MARKER));
    return image;
  } catch (error) {
    if (NOT_FOUND.has(errnoCode(error))) return undefined;
    throw error;
  }
}

const NOT_FOUND = new Set<string | undefined>(['ENOENT', 'ENOTDIR', 'ELOOP', 'ENAMETOOLONG']);

async function unknownBase(images: Images, name: string): Promise<ObuilderError> {
  const names = await listImages(images);
  const shown = names.slice(0, LISTED_MAX).join(', ');
  const more = names.length > LISTED_MAX ? ` and ${names.length - LISTED_MAX} more` : '';
  return new ObuilderError(
    'UNKNOWN_BASE',
    `${JSON.stringify(name)}: no such base image in ${images.baseDirectory}; there is ${shown === '' ? 'none' : shown + more}`,
    {
      hint: `a base image is a directory there${images.markedOnly === true ? ` that holds ${IMAGE_MARKER}` : ''}`,
    },
  );
}

async function listImages(images: Images): Promise<string[]> {
  try {
    const names = (await readdir(images.baseDirectory)).sort();
    const found = await Promise.all(names.map((name) => findImage(images, name)));
    return names.filter((_, i) => found[i] !== undefined);
  } catch (error) {
    if (NOT_FOUND.has(errnoCode(error))) return [];
    throw error;
  }
}
