import { posix } from 'node:path';
import { ObuilderError } from '../errors.ts';
import type { StepPath } from './sandbox.ts';

/** The directories that a step works in, as it sees them. */
export interface StepPlaces {
  readonly homePath: string;
  readonly prefix: string;
  readonly tmpPath: string;
  /** All its secrets, one file each, named by the last component of its target; there while it runs. */
  readonly secretsPath: string;
}

/**
 * The path at which a step finds `path`. A spec's root is the home, and so is a leading `~`, as in a shell.
 * @throws {ObuilderError} PATH_OUTSIDE unless it lies in one of the places.
 */
export function locateIn(places: StepPlaces, path: StepPath): string {
  const located =
    path.from === 'absolute'
      ? posix.normalize(path.path)
      : posix.join(places.homePath, path.path.replace(/^~(?=\/|$)/, ''));
  const inside = path.from === 'root' ? [places.homePath] : allPlaces(places);
  if (inside.some((place) => isWithin(place, located))) return withoutTrailingSlash(located);
  throw new ObuilderError(
    'PATH_OUTSIDE',
    `${path.path}: lies outside of what a step may use: ${allPlaces(places).join(', ')}`,
    { hint: 'write it relative to the home directory, or as a path below one of these' },
  );
}

/** The places of one of several build users that meet the same file system: each has a TMPDIR and secrets to itself. */
export function placesOfOne(places: StepPlaces, uid: number): StepPlaces {
  const { tmpPath, secretsPath } = places;
  return { ...places, tmpPath: `${tmpPath}-${uid}`, secretsPath: `${secretsPath}-${uid}` };
}

/** A located path with another TMPDIR. */
export function inTmpOf({ tmpPath }: StepPlaces, located: string, places: StepPlaces): string {
  const { place, rest } = splitPlace(places, located);
  return place === places.tmpPath ? posix.join(tmpPath, rest) : located;
}

/** Whether a step works there: what `locateIn` answers always is. */
export function isLocated(places: StepPlaces, path: string): boolean {
  return allPlaces(places).some((place) => isWithin(place, path));
}

/** A located path as the place it lies in and the rest, `.` for the place itself. */
export function splitPlace(places: StepPlaces, located: string): { place: string; rest: string } {
  const place = allPlaces(places).find((one) => isWithin(one, located));
  if (place === undefined) throw new Error(`BUG: ${located} was not located`);
  return { place, rest: posix.relative(place, located) || '.' };
}

/** The longest first: where one lies in another, the inner one is meant. */
function allPlaces({ homePath, prefix, tmpPath }: StepPlaces): string[] {
  return [homePath, prefix, tmpPath].sort((a, b) => b.length - a.length);
}

function isWithin(place: string, path: string): boolean {
  return path === place || path.startsWith(`${place}/`);
}

function withoutTrailingSlash(path: string): string {
  return path.length > 1 && path.endsWith('/') ? path.slice(0, -1) : path;
}
