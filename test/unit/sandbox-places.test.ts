import { describe, expect, test } from 'vitest';
import { inTmpOf, locateIn, placesOfOne, splitPlace } from '../../src/sandbox/step-places.ts';

const places = {
  homePath: '/Users/mac1000',
  prefix: '/usr/local',
  tmpPath: '/Users/mac1000.tmp',
  secretsPath: '/Users/mac1000.tmp.secrets',
};

describe('a path from the root of the spec', () => {
  test.each([
    ['/', '/Users/mac1000'],
    ['', '/Users/mac1000'],
    ['.', '/Users/mac1000'],
    ['/src', '/Users/mac1000/src'],
    ['src/./a//b/', '/Users/mac1000/src/a/b'],
    ['a/../b', '/Users/mac1000/b'],
    ['~', '/Users/mac1000'],
    ['~/.opam/download-cache', '/Users/mac1000/.opam/download-cache'],
    ['~user/x', '/Users/mac1000/~user/x'],
  ])('%j is %s', (path, located) => expect(locateIn(places, { from: 'root', path })).toBe(located));

  test.each(['..', '/../x', 'a/../../x', '../mac1000.tmp/x', '~/..'])('%j is refused', (path) => {
    expect(() => locateIn(places, { from: 'root', path })).toThrow(
      expect.objectContaining({ code: 'PATH_OUTSIDE' }),
    );
  });
});

describe('an absolute path', () => {
  test.each([
    ['/Users/mac1000', '/Users/mac1000'],
    ['/Users/mac1000/.opam/', '/Users/mac1000/.opam'],
    ['/usr/local/var//x/.', '/usr/local/var/x'],
    ['/Users/mac1000.tmp/x', '/Users/mac1000.tmp/x'],
    ['/etc/../usr/local/x', '/usr/local/x'],
  ])('%s is %s', (path, located) => expect(locateIn(places, { from: 'absolute', path })).toBe(located));

  test.each([
    '/',
    '/src',
    '/usr',
    '/usr/localx',
    '/Users/mac10001',
    '/Users/mac1000/../ada',
    '/usr/local/../bin',
  ])('%s is refused, naming it and what may be used', (path) => {
    expect(() => locateIn(places, { from: 'absolute', path })).toThrow(
      `${path}: lies outside of what a step may use: /Users/mac1000.tmp, /Users/mac1000, /usr/local`,
    );
  });
});

test('one of several build users has a TMPDIR to itself, and what was located in the common one lies there', () => {
  const own = placesOfOne(places, 705);
  expect(own).toEqual({
    ...places,
    tmpPath: '/Users/mac1000.tmp-705',
    secretsPath: '/Users/mac1000.tmp.secrets-705',
  });
  expect(inTmpOf(own, '/Users/mac1000.tmp/x/y', places)).toBe('/Users/mac1000.tmp-705/x/y');
  expect(inTmpOf(own, '/Users/mac1000/x', places)).toBe('/Users/mac1000/x');
});

test('a located path is split at the inner place', () => {
  const nested = { ...places, prefix: '/Users/mac1000/local' };
  expect(splitPlace(nested, '/Users/mac1000/local/var')).toEqual({ place: nested.prefix, rest: 'var' });
  expect(splitPlace(nested, '/Users/mac1000')).toEqual({ place: nested.homePath, rest: '.' });
});
